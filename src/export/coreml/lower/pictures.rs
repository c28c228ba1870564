//! Pictures of 0 to 255 as the model sees them: in 32 bits whatever is computed in.

use super::super::CoremlError;
use super::Lower;
use super::program::{Arg, Kind};
use crate::export::graph::{Colours, Dim};

impl Lower<'_> {
    /// Of pictures [1, 3, h, w].
    pub(super) fn prepared(&mut self, pictures: &str, colours: Colours) -> Result<String, CoremlError> {
        let mut made = pictures.to_owned();
        if let Some([height, width]) = &self.graph.resize {
            let planes = |h: usize, w: usize| [1, 3, h, w].map(Dim::Fixed).to_vec();
            let name = format!("{pictures}_height");
            let down = self.floats_of(&name, &[1, 1, height.to, height.from], &height.weights, Kind::Float32)?;
            let summed = self.matmul(&down, &made, false, planes(height.to, width.from));
            made = self.cut(&name, &summed, &[height.to, 1], &height.shift)?;
            let name = format!("{pictures}_width");
            let across = self.floats_of(&name, &[1, 1, width.to, width.from], &width.weights, Kind::Float32)?;
            let summed = self.matmul(&made, &across, true, planes(height.to, width.to));
            made = self.cut(&name, &summed, &[width.to], &width.shift)?;
        }
        for (op, part, values) in [("mul", "scale", colours.scale), ("add", "shift", colours.shift)] {
            let by = self.floats_of(&format!("{pictures}_{part}"), &[3, 1, 1], &values, Kind::Float32)?;
            made = self.two(op, &made, &by);
        }
        Ok(made)
    }

    /// Sums, shifted, as whole numbers of 0 to 255.
    fn cut(&mut self, name: &str, sums: &str, dims: &[usize], shift: &[f32]) -> Result<String, CoremlError> {
        let shift = self.floats_of(&format!("{name}_shift"), dims, shift, Kind::Float32)?;
        let shifted = self.two("add", sums, &shift);
        let whole = self.one("floor", &shifted, &[]);
        let [least, most] = [0.0, 255.0].map(|bound| self.number(bound, Kind::Float32));
        Ok(self.one("clip", &whole, &[("alpha", Arg::Of(&least)), ("beta", Arg::Of(&most))]))
    }
}
