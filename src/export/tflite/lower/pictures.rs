//! Pictures that are given as bytes, as the model sees them: in 32 bits whatever is computed in.

use super::super::TfLiteError;
use super::super::schema::{self, Kind};
use super::{Lower, fixed};
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::export::graph::{Colours, Dim};
use crate::format::image::Pass;

impl Lower<'_> {
    /// Of bytes [n, h, w, 3].
    pub(super) fn prepared(&mut self, bytes: &str, colours: Colours) -> Result<String, TfLiteError> {
        let mut made = self.cast(bytes, Kind::Float32);
        if let Some([height, width]) = &self.graph.resize {
            let columns = self.transposed(&made, &[0, 2, 3, 1]);
            let down = self.passed(&columns, &format!("{bytes}.height"), height)?;
            let rows = self.transposed(&down, &[0, 3, 2, 1]);
            let across = self.passed(&rows, &format!("{bytes}.width"), width)?;
            made = self.transposed(&across, &[0, 1, 3, 2]);
        }
        for (code, part, values) in [(schema::MUL, "scale", colours.scale), (schema::ADD, "shift", colours.shift)] {
            let by = self.exact(format!("{bytes}.{part}"), &[3], &values);
            made = self.join(code, &made, &by);
        }
        Ok(made)
    }

    /// The last axis with another length, of whole numbers of 0 to 255.
    fn passed(&mut self, x: &str, name: &str, pass: &Pass) -> Result<String, TfLiteError> {
        let weights = self.exact(name.to_owned(), &[pass.to, pass.from], &pass.weights);
        let shift = self.exact(format!("{name}.shift"), &[pass.to], &pass.shift);
        let mut shape = self.shape_of(x);
        *shape.last_mut().expect("it has four axes") = Dim::Fixed(pass.to);
        let summed = self.fully_connected(x, &weights, &shift, &shape);
        let whole = self.map(schema::FLOOR, &summed);
        self.clip(&whole, 0.0, 255.0, false)
    }

    fn exact(&mut self, name: String, dims: &[usize], values: &[f32]) -> String {
        let buffer = self.buffer(floats::to_bytes(values, Float::F32));
        self.tensor_of(name, Kind::Float32, fixed(dims), Some(buffer))
    }
}
