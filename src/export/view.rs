//! A tensor of the file, and how it is seen: turned, reshaped. Views that undo one another are none.

use super::graph::Dim;
use crate::backend::Window;

/// A tensor seen in a way that is not written before somebody needs it so.
#[derive(Clone, Debug)]
pub(in crate::export) struct Seen {
    /// The tensor in the file.
    pub(in crate::export) base: String,
    /// Its shape.
    pub(in crate::export) of: Vec<Dim>,
    /// What is done to it, in this order.
    pub(in crate::export) views: Vec<View>,
}

/// One way to see a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::export) enum View {
    /// With its axes in this order.
    Turn(Vec<usize>),
    /// In this shape.
    Reshape(Vec<Dim>),
}

/// NCHW as NHWC.
pub(in crate::export) const CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];
/// NHWC as NCHW.
pub(in crate::export) const CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];

impl View {
    /// The shape of what it makes of a shape.
    pub(in crate::export) fn shape(&self, of: &[Dim]) -> Vec<Dim> {
        match self {
            View::Turn(order) => order.iter().map(|axis| of[*axis].clone()).collect(),
            View::Reshape(shape) => shape.clone(),
        }
    }
}

impl Seen {
    /// A tensor as it is.
    pub(in crate::export) fn plain(base: String, of: Vec<Dim>) -> Self {
        Self { base, of, views: Vec::new() }
    }

    /// The shape that is seen.
    pub(in crate::export) fn shape(&self) -> Vec<Dim> {
        self.views.iter().fold(self.of.clone(), |shape, view| view.shape(&shape))
    }

    /// The same in another way.
    #[must_use]
    pub(in crate::export) fn seen(mut self, view: View) -> Self {
        let joined = match (self.views.last(), view) {
            (Some(View::Turn(before)), View::Turn(order)) => {
                let joined = order.iter().map(|axis| before[*axis]).collect();
                self.views.pop();
                View::Turn(joined)
            }
            (Some(View::Reshape(_)), View::Reshape(shape)) => {
                self.views.pop();
                View::Reshape(shape)
            }
            (_, view) => view,
        };
        let shape = self.shape();
        let is_none = match &joined {
            View::Turn(order) => order.iter().copied().eq(0..order.len()),
            View::Reshape(to) => *to == shape,
        };
        if !is_none {
            self.views.push(joined);
        }
        self
    }

    /// Whether it is a tensor of channels first that is seen with them last.
    pub(in crate::export) fn is_channels_last(&self) -> bool {
        self.of.len() == 4 && self.views == [View::Turn(CHANNELS_LAST.to_vec())]
    }
}

/// A number as 16 bits keep it from being none: what is added lest anything be divided by nothing does that there too.
pub(super) fn above_nothing(value: f32) -> f32 {
    const LEAST: f32 = 1.0 / (1 << 24) as f32;
    if value != 0.0 && value.abs() < LEAST { LEAST.copysign(value) } else { value }
}

/// A matrix [rows, columns] as [columns, rows].
pub(in crate::export) fn turned<V: Copy>(values: &[V], rows: usize, columns: usize) -> Vec<V> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// Zeros below or to the right of so many pixels, by which a convolution gives `out`.
pub(in crate::export) fn zeros_after(window: Window, out: usize, len: usize) -> usize {
    ((out - 1) * window.stride + window.size).saturating_sub(len + window.before)
}

/// Why a convolution over pictures [n, h, w, c] is none of a format's, where it is none: those go on as far as they can.
pub(in crate::export) fn is_no_convolution(window: Window, pictures: &[Dim]) -> Option<&'static str> {
    let ends_early = |(out, len): (usize, usize)| out * window.stride + window.size <= len + window.before;
    match [pictures[1].fixed(), pictures[2].fixed()] {
        [Some(h), Some(w)] if [(window.out_h, h), (window.out_w, w)].into_iter().any(ends_early) => {
            Some("its windows end before the pictures do")
        }
        [Some(_), Some(_)] => None,
        _ => Some("its pictures are of any size"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(shape: &[usize]) -> Vec<Dim> {
        shape.iter().map(|n| Dim::Fixed(*n)).collect()
    }

    #[test]
    fn what_is_added_to_be_above_nothing_is_so_in_16_bits() {
        for value in [1e-12, -1e-9, 1e-7, 0.5] {
            let kept = half::f16::from_f32(above_nothing(value)).to_f32();
            assert!(kept != 0.0 && kept.signum() == value.signum(), "{value}: {kept}");
        }
        assert_eq!((above_nothing(0.0), above_nothing(0.5)), (0.0, 0.5));
    }

    #[test]
    fn views_that_undo_one_another_are_none() {
        let plain = Seen::plain("x".into(), fixed(&[2, 3, 4, 5]));
        let last = plain.clone().seen(View::Turn(CHANNELS_LAST.to_vec()));
        assert!(last.is_channels_last());
        assert_eq!(last.shape(), fixed(&[2, 4, 5, 3]));
        assert!(last.clone().seen(View::Turn(CHANNELS_FIRST.to_vec())).views.is_empty());
        let flat = last.seen(View::Reshape(fixed(&[40, 3])));
        assert_eq!(flat.views.len(), 2);
        assert!(flat.seen(View::Reshape(fixed(&[2, 4, 5, 3]))).is_channels_last());
    }

    #[test]
    fn a_window_that_could_go_on_is_no_convolution() {
        let window = |out| Window { size: 2, stride: 2, before: 0, out_h: out, out_w: out };
        let pictures = fixed(&[1, 5, 5, 3]);
        assert_eq!(is_no_convolution(window(2), &pictures), None);
        assert!(is_no_convolution(window(1), &pictures).is_some());
    }
}
