//! AWQ: Lin et al., "AWQ: activation-aware weight quantization for on-device LLM compression and acceleration", 2023. Inputs of
//! large magnitude are made smaller and their weights larger, so that rounding costs these less; what the model computes
//! stays the same, as the module before gives the inputs that much smaller. Then each group's range is cut to where its
//! products are nearest.
//!
//! The paper tries out both on the rows themselves. Here the errors of the products come from the [`Gram`], which has the
//! same ones without a pass over the rows.

use rayon::prelude::*;

use crate::affine::{self, Form};
use crate::gram::{Gram, Judge};
use crate::simd::{Kernel, widest};

/// Exponents of the magnitudes that are tried: 0, 1/20, ..., 19/20.
const STEPS: usize = 20;
/// Ranges that are tried: whole, less 1/20 of it, ..., half.
const CUTS: usize = 11;
/// Smallest scale before all are brought to the middle.
const SMALLEST: f32 = 1e-4;

/// What the inputs of `readers` (matrices [out, inner], all reading what the Gram is of) are best divided by: one scale for
/// each of the `count` outputs that they come from, `outputs[i]` being that of input i. Ones where rounding gains nothing.
pub fn scales(readers: &[&[f32]], gram: &Gram, outputs: &[usize], count: usize, form: &Form) -> Vec<f32> {
    let (mut squares, mut shared) = (vec![0.0; count], vec![0.0f64; count]);
    for (square, output) in gram.mean_squares().iter().zip(outputs) {
        squares[*output] += square;
        shared[*output] += 1.0;
    }
    let magnitudes: Vec<f64> = squares.iter().zip(&shared).map(|(sum, n)| (sum / n.max(1.0)).sqrt()).collect();
    let judge = gram.judge();
    let mut best = (vec![1.0; count], f64::INFINITY);
    for step in 0..STEPS {
        let scales = centred(&magnitudes, step as f64 / STEPS as f64);
        let error: f64 = readers.iter().map(|values| error(values, &scales, outputs, &judge, form)).sum();
        if error < best.1 {
            best = (scales, error);
        }
    }
    best.0
}

/// Magnitudes to an exponent, the geometric mean of the smallest and the largest brought to 1.
fn centred(magnitudes: &[f64], exponent: f64) -> Vec<f32> {
    let scales: Vec<f32> = magnitudes.iter().map(|m| (m.powf(exponent) as f32).max(SMALLEST)).collect();
    let (low, high) = scales.iter().fold((f32::INFINITY, 0.0f32), |(low, high), s| (low.min(*s), high.max(*s)));
    let middle = (low * high).sqrt();
    scales.iter().map(|s| s / middle).collect()
}

/// What the products of a matrix are off by, rounded after its inputs' weights were multiplied by scales.
fn error(values: &[f32], scales: &[f32], outputs: &[usize], judge: &Judge, form: &Form) -> f64 {
    let inner = outputs.len();
    let mut moved = values.to_vec();
    multiply(&mut moved, scales, outputs);
    let (made, _) = affine::round(&moved, inner, form);
    let mut off = made.expand(inner, form.bits, form.group);
    off.par_chunks_mut(inner).zip(moved.par_chunks(inner)).for_each(|(off, moved)| {
        for (i, (off, moved)) in off.iter_mut().zip(moved).enumerate() {
            *off = (*off - moved) / scales[outputs[i]];
        }
    });
    judge.error(&off)
}

/// Each input's weights by its scale: [out, inner].
pub fn multiply(values: &mut [f32], scales: &[f32], outputs: &[usize]) {
    values.par_chunks_mut(outputs.len()).for_each(|row| {
        row.iter_mut().zip(outputs).for_each(|(w, output)| *w *= scales[*output]);
    });
}

/// Cuts the weights [out, inner] of each group to the range in which its products are nearest once they are rounded.
pub fn clip(values: &mut [f32], gram: &Gram, form: &Form) {
    let (inner, group) = (gram.inner, form.group);
    let blocks = gram.judge().blocks(group);
    values.par_chunks_mut(inner).for_each(|row| {
        for (values, block) in row.chunks_exact_mut(group).zip(blocks.chunks_exact(group * group)) {
            let range = widest(Cut { values, block, form });
            values.iter_mut().for_each(|v| *v = v.clamp(range.0, range.1));
        }
    });
}

/// Finds a group's range.
struct Cut<'a> {
    /// [group]
    values: &'a [f32],
    /// The means of products of inputs, [group, group].
    block: &'a [f32],
    form: &'a Form,
}

impl Kernel for Cut<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run(self) -> (f32, f32) {
        let n = self.values.len();
        let (low, high) =
            self.values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
        let (mut off, mut moved) = ([0.0f32; 128], [0.0f32; 128]);
        let mut best = ((low, high), f32::INFINITY);
        for cut in 0..CUTS {
            let share = 1.0 - 0.5 * cut as f32 / (CUTS - 1) as f32;
            let range = (low * share, high * share);
            let grid = affine::between(range.0, range.1, self.form);
            for (off, v) in off.iter_mut().zip(self.values) {
                *off = affine::code_of(v.clamp(range.0, range.1), grid, self.form) * grid.0 + grid.1 - v;
            }
            moved[..n].fill(0.0);
            for (off, row) in off[..n].iter().zip(self.block.chunks_exact(n)) {
                moved[..n].iter_mut().zip(row).for_each(|(m, v)| *m = off.mul_add(*v, *m));
            }
            let error: f32 = moved[..n].iter().zip(&off).map(|(m, off)| m * off).sum();
            if error < best.1 {
                best = (range, error);
            }
        }
        best.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    /// Inputs of which every sixteenth is much larger, as those of language models are.
    fn inputs(n: usize, inner: usize) -> Vec<f32> {
        let mut x = random(n * inner, "x");
        x.chunks_mut(inner).for_each(|row| row.iter_mut().step_by(16).for_each(|v| *v *= 20.0));
        x
    }

    fn gram(n: usize, inner: usize) -> Gram {
        let mut gram = Gram::new(inner);
        gram.add(&inputs(n, inner));
        gram
    }

    fn off(values: &[f32], wanted: &[f32], inner: usize, form: &Form) -> Vec<f32> {
        let made = affine::round(values, inner, form).0.expand(inner, form.bits, form.group);
        made.iter().zip(wanted).map(|(a, b)| a - b).collect()
    }

    #[test]
    fn what_reads_large_inputs_is_rounded_less() {
        let (rows, inner) = (16, 256);
        let (values, gram) = (random(rows * inner, "w"), gram(500, inner));
        let outputs: Vec<usize> = (0..inner).collect();
        for bits in [3, 4] {
            let form = Form::new(bits, 64);
            let plain = gram.error(&off(&values, &values, inner, &form));
            let scales = scales(&[&values], &gram, &outputs, inner, &form);
            assert!(scales[16] > 2.0 * scales[17], "{scales:?}");
            let (mut moved, mut divided) = (values.clone(), gram.clone());
            multiply(&mut moved, &scales, &outputs);
            divided.divide(&scales);
            let scaled = divided.error(&off(&moved, &moved, inner, &form));
            assert!(scaled < 0.7 * plain, "{bits} bits: {scaled} {plain}");
            let mut cut = moved.clone();
            clip(&mut cut, &divided, &form);
            let both = divided.error(&off(&cut, &moved, inner, &form));
            assert!(both < scaled, "{bits} bits: {both} {scaled}");
        }
    }

    #[test]
    fn inputs_of_one_output_have_one_scale() {
        let (values, gram) = (random(8 * 64, "w"), gram(200, 64));
        // Two heads of queries read one of values.
        let outputs: Vec<usize> = (0..64).map(|i| i % 32).collect();
        let scales = scales(&[&values], &gram, &outputs, 32, &Form::new(4, 32));
        assert_eq!(scales.len(), 32);
        assert!(scales[16] > scales[17]);
    }

    #[test]
    fn inputs_that_are_alike_need_no_scales() {
        let mut gram = Gram::new(64);
        gram.sums = (0..64 * 64).map(|at| if at % 65 == 0 { 2.0 } else { 0.0 }).collect();
        gram.count = 1;
        let outputs: Vec<usize> = (0..64).collect();
        let scales = scales(&[&random(8 * 64, "w")], &gram, &outputs, 64, &Form::new(4, 64));
        assert!(scales.iter().all(|s| (s - 1.0).abs() < 1e-6), "{scales:?}");
    }

    #[test]
    fn dividing_inputs_is_dividing_the_sums() {
        let mut x = inputs(40, 32);
        let scales: Vec<f32> = (0..32).map(|i| 0.5 + i as f32 / 16.0).collect();
        let (mut before, mut after) = (Gram::new(32), Gram::new(32));
        before.add(&x);
        before.divide(&scales);
        x.chunks_mut(32).for_each(|row| row.iter_mut().zip(&scales).for_each(|(v, s)| *v /= s));
        after.add(&x);
        for (a, b) in before.sums.iter().zip(&after.sums) {
            assert!((a - b).abs() < 1e-3 * (1.0 + b.abs()), "{a} {b}");
        }
        assert!(before.largest.iter().zip(&after.largest).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
