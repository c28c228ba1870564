//! Programs that see pictures alone, of operations that a format computes in bytes from end to end: convolutions, sums, means and what
//! only moves values. Of others hardly one in a thousand is such a program.

use super::{Known, Plan, Program, Result, fixed, open, width};
use effai::backend::Tensor;
use effai::backend::rng::Rng;
use effai::export::graph::{Dim, Element, Input};
use effai::export::source::{BATCH, PIXELS};

/// Seeds from this one on are of such programs.
pub(crate) const FIRST: u64 = 1_000_000;
/// Of values that may be larger nothing more is computed: a number that makes them smaller has no bytes.
const TOP_MAX: f32 = 512.0;

impl Plan {
    pub(super) fn network(seed: u64) -> Self {
        let rng = &mut Rng::new(seed, "plan");
        let (h, w) = (4 + rng.below(5), 4 + rng.below(5));
        let (w, c) = (if rng.below(3) == 0 { w } else { h }, [1, 2, 3, 3, 5][rng.below(5)]);
        let shape = [vec![open(BATCH)], fixed(&[h, w, c])].concat();
        let inputs = vec![Input { name: PIXELS.into(), element: Element::Float, shape }];
        let fixed = if rng.below(4) == 0 { vec![(BATCH, 2)] } else { Vec::new() };
        Self { seed, inputs, fixed, steps: 2 + rng.below(7) }
    }

    /// Whether it is such a program's.
    pub(crate) fn is_network(&self) -> bool {
        self.seed >= FIRST
    }
}

impl<T: Tensor> Program<'_, T> {
    pub(super) fn of_network(&mut self) -> Result<Option<Known<T>>> {
        match self.rng.below(10) {
            0..4 => self.patches(),
            4..6 => self.depthwise(),
            6..8 => self.added(),
            8 => self.beside(),
            _ => self.pooled(),
        }
    }

    /// Whether more is computed of a value of this size.
    pub(super) fn goes_on(&self, top: f32) -> bool {
        !self.plan.is_network() || top <= TOP_MAX
    }

    /// Two pictures of one size, or one twice.
    fn added(&mut self) -> Result<Option<Known<T>>> {
        let Some((x, _)) = self.pictures() else { return Ok(None) };
        let Some(y) = self.pick(|dims| *dims == x.dims) else { return Ok(None) };
        let tensor = x.tensor.add(&y.tensor)?;
        self.made(tensor, x.dims, x.top + y.top)
    }

    /// Two pictures of one size, channel after channel.
    fn beside(&mut self) -> Result<Option<Known<T>>> {
        let Some((x, [.., c])) = self.pictures() else { return Ok(None) };
        let other = self.pick(|dims| dims.len() == 4 && dims[..3] == x.dims[..3] && dims[3].fixed().is_some());
        let Some(y) = other else { return Ok(None) };
        let mut dims = x.dims.clone();
        dims[3] = Dim::Fixed(c + y.dims[3].fixed().expect("it was chosen so"));
        if !self.fits(&dims) {
            return Ok(None);
        }
        let tensor = T::concat(&[x.tensor.clone(), y.tensor.clone()], 3)?;
        self.made(tensor, dims, x.top.max(y.top))
    }

    /// The mean over a picture, and a product of it.
    fn pooled(&mut self) -> Result<Option<Known<T>>> {
        let Some((x, [h, w, c])) = self.pictures() else { return Ok(None) };
        let flat = self.as_shape(&x, [&x.dims[..1], &fixed(&[h * w, c])].concat())?;
        let sum = flat.tensor.sum(1)?;
        let mean = sum.affine(1.0 / (h * w) as f64, 0.0)?;
        let mut made = self.made(mean, [&x.dims[..1], &fixed(&[1, c])].concat(), x.top)?.expect("always");
        made = self.as_shape(&made, [&x.dims[..1], &fixed(&[c])].concat())?;
        if self.chance(2) {
            return Ok(Some(made));
        }
        let out = width(&mut self.rng);
        self.product(&made, out).map(Some)
    }
}
