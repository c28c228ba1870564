//! Pictures that are given as bytes, as the model sees them: in 32 bits whatever is computed in.

use super::{FLOAT, Lower};
use crate::backend::affine::Float;
use crate::backend::floats;
use crate::export::graph::Colours;
use crate::format::image::Pass;

impl Lower<'_> {
    /// Of bytes [n, 3, h, w].
    pub(super) fn prepared(&mut self, bytes: &str, colours: Colours) -> String {
        let mut made = self.cast(bytes, FLOAT);
        if let Some([height, width]) = &self.graph.resize {
            let down = self.exact(format!("{bytes}.height"), &[height.to, height.from], &height.weights);
            let summed = self.node("MatMul", &[&down, &made]);
            made = self.cut(bytes, &summed, "height", &[height.to, 1], &height.shift);
            let across = self.exact(format!("{bytes}.width"), &[width.from, width.to], &turned(width));
            let summed = self.node("MatMul", &[&made, &across]);
            made = self.cut(bytes, &summed, "width", &[width.to], &width.shift);
        }
        for (op, part, values) in [("Mul", "scale", colours.scale), ("Add", "shift", colours.shift)] {
            let by = self.exact(format!("{bytes}.{part}"), &[3, 1, 1], &values);
            made = self.node(op, &[&made, &by]);
        }
        made
    }

    /// Sums, shifted, as whole numbers of 0 to 255.
    fn cut(&mut self, bytes: &str, sums: &str, axis: &str, dims: &[usize], shift: &[f32]) -> String {
        let shift = self.exact(format!("{bytes}.{axis}.shift"), dims, shift);
        let shifted = self.node("Add", &[sums, &shift]);
        let whole = self.node("Floor", &[&shifted]);
        let bounds = [("least", 0.0), ("most", 255.0)];
        let [least, most] = bounds.map(|(name, bound)| self.exact(format!("{bytes}.{axis}.{name}"), &[], &[bound]));
        self.node("Clip", &[&whole, &least, &most])
    }

    fn exact(&mut self, name: String, dims: &[usize], values: &[f32]) -> String {
        self.initializer(name, dims, FLOAT, floats::to_bytes(values, Float::F32))
    }
}

/// [from, to].
fn turned(pass: &Pass) -> Vec<f32> {
    (0..pass.from * pass.to).map(|at| pass.weights[at % pass.to * pass.from + at / pass.to]).collect()
}
