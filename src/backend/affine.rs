//! Weights as group-wise affine codes, MLX's form: `w = code * scale + bias`, codes of 2, 3, 4, 6 or 8 bits.
//!
//! The grid is MLX's (`affine_quantize` in its `ops.cpp`): the end of the larger magnitude is exact, zero is on the grid,
//! ties go to the even code. Codes lie as one stream of bits in a row's 32-bit words, low bits first; that is MLX's packing for
//! every width, those that do not divide a word too. One pass: a group is read, rounded, packed and its error summed while
//! it is in the first cache. A symmetric grid, or one for a whole row or matrix, is stored in the same form.

use half::{bf16, f16};
use rayon::prelude::*;
use serde::Deserialize;

use super::simd::{self, Kernel, byte, clamp, ends};

/// How a matrix is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Bits of a code: one of [`BITS`].
    pub bits: usize,
    /// Weights that have a scale to themselves in the file: one of [`GROUPS`].
    pub group: usize,
    /// Zero is a code and the steps below it are as those above: the bias is minus half of all codes' steps.
    pub symmetric: bool,
    /// What one grid is made for.
    pub per: Per,
    /// What scales and biases are kept as: codes are of the grid as it is kept.
    pub float: Float,
}

impl Form {
    /// MLX's own: a grid for each group, its ends where they are, in 32-bit floats.
    pub fn new(bits: usize, group: usize) -> Self {
        Self { bits, group, symmetric: false, per: Per::Group, float: Float::F32 }
    }

    /// The highest code.
    fn highest(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }
}

/// What one grid is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// Each group of a row.
    #[default]
    Group,
    /// Each row: an output channel.
    Channel,
    /// The matrix.
    Tensor,
}

/// The number types that floats are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Float {
    /// 32 bits.
    #[default]
    #[serde(rename = "float32")]
    F32,
    /// 16 bits, of which 10 are the fraction's.
    #[serde(rename = "float16")]
    F16,
    /// 16 bits, of which 7 are the fraction's; the range of 32.
    #[serde(rename = "bfloat16")]
    Bf16,
}

impl std::fmt::Display for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Float::F32 => "float32",
            Float::F16 => "float16",
            Float::Bf16 => "bfloat16",
        })
    }
}

impl Float {
    /// The nearest number there is.
    #[inline(always)]
    pub fn nearest(self, value: f32) -> f32 {
        match self {
            Float::F32 => value,
            Float::F16 => f16::from_f32(value).to_f32(),
            Float::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// A matrix [rows, inner] in codes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affine {
    /// [rows, inner * bits / 32]
    pub words: Vec<u32>,
    /// [rows, inner / group]
    pub scales: Vec<f32>,
    /// [rows, inner / group]
    pub biases: Vec<f32>,
}

impl Affine {
    /// The weights, row after row.
    pub fn expand(&self, inner: usize, bits: usize, group: usize) -> Vec<f32> {
        debug_assert!(inner.is_multiple_of(group));
        expand(&codes(&self.words, bits), &self.scales, &self.biases, group)
    }
}

/// What codes stand for: those of each group by its scale and bias.
pub fn expand(codes: &[u8], scales: &[f32], biases: &[f32], group: usize) -> Vec<f32> {
    let mut values = vec![0.0; codes.len()];
    let parts = values.par_chunks_exact_mut(group).zip(codes.par_chunks_exact(group));
    parts.zip(scales).zip(biases).for_each(|(((values, codes), scale), bias)| {
        values.iter_mut().zip(codes).for_each(|(v, code)| *v = f32::from(*code) * scale + bias);
    });
    values
}

/// The widths of codes.
pub const BITS: [usize; 5] = [2, 3, 4, 6, 8];
/// Weights that may share a scale.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// Rounds a matrix to the nearest codes; also the sum of its squared errors.
///
/// # Panics
/// If the form's `bits` is not one of [`BITS`], or its `group` none of [`GROUPS`] or no divisor of `inner`.
pub fn round(values: &[f32], inner: usize, form: &Form) -> (Affine, f64) {
    let (bits, group) = (form.bits, form.group);
    assert!(BITS.contains(&bits) && GROUPS.contains(&group), "{bits} bits in groups of {group}");
    assert!(inner.is_multiple_of(group) && values.len().is_multiple_of(inner.max(1)), "rows of whole groups");
    let groups = values.len() / group;
    let mut made =
        Affine { words: vec![0; values.len() * bits / 32], scales: vec![0.0; groups], biases: vec![0.0; groups] };
    let rows = (PART / inner).max(1);
    let (per_row, in_row) = (inner * bits / 32, inner / group);
    let whole = (form.per == Per::Tensor).then(|| grid_of(values, form));
    let parts = values.par_chunks(rows * inner).zip(made.words.par_chunks_mut(rows * per_row));
    let parts = parts.zip(made.scales.par_chunks_mut(rows * in_row)).zip(made.biases.par_chunks_mut(rows * in_row));
    let errors: Vec<f64> = parts
        .map(|(((values, words), scales), biases)| {
            simd::widest(Part { form, inner, whole, values, words, scales, biases })
        })
        .collect();
    // In the order of the rows, so that threads change nothing.
    (made, errors.iter().sum())
}

/// Weights that a thread takes at a time.
const PART: usize = 1 << 14;

struct Part<'a> {
    form: &'a Form,
    inner: usize,
    /// The grid of all, where there is one.
    whole: Option<(f32, f32)>,
    values: &'a [f32],
    words: &'a mut [u32],
    scales: &'a mut [f32],
    biases: &'a mut [f32],
}

impl Kernel for Part<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        match self.form.bits {
            2 => self.rounded::<2>(),
            3 => self.rounded::<3>(),
            4 => self.rounded::<4>(),
            6 => self.rounded::<6>(),
            _ => self.rounded::<8>(),
        }
    }
}

impl Part<'_> {
    /// The sum of the squared errors.
    #[inline(always)]
    fn rounded<const BITS: usize>(self) -> f64 {
        let Form { group, per, .. } = *self.form;
        let highest = self.form.highest();
        let groups_of_row = self.inner / group;
        let words = self.words.chunks_exact_mut(group * BITS / 32);
        let groups = self.values.chunks_exact(group).zip(words).zip(self.scales).zip(self.biases);
        let mut error = 0.0f64;
        let mut shared = self.whole;
        for (i, (((values, words), scale), bias)) in groups.enumerate() {
            if per == Per::Channel && i.is_multiple_of(groups_of_row) {
                shared = Some(grid_of(&self.values[i * group..][..self.inner], self.form));
            }
            let (step, begin) = match shared {
                Some(shared) => shared,
                None => grid_of(values, self.form),
            };
            (*scale, *bias) = (step, begin);
            for (values, words) in values.as_chunks::<32>().0.iter().zip(words.chunks_exact_mut(BITS)) {
                let (mut codes, mut off) = ([0u32; 32], [0.0f32; 32]);
                for i in 0..32 {
                    let code = clamp(((values[i] - begin) / step).round_ties_even(), 0.0, highest);
                    codes[i] = u32::from(byte(code));
                    off[i] = values[i] - (code * step + begin);
                }
                let mut squares = [0.0f32; 8];
                for part in off.as_chunks::<8>().0 {
                    for i in 0..8 {
                        squares[i] = part[i].mul_add(part[i], squares[i]);
                    }
                }
                error += f64::from(squares.iter().sum::<f32>());
                pack::<BITS>(&codes, words);
            }
        }
        error
    }
}

/// Scale and bias of the weights that share them.
#[inline(always)]
pub fn grid_of(values: &[f32], form: &Form) -> (f32, f32) {
    let (low, high) = ends(values);
    between(low, high, form)
}

/// Scale and bias of the grid from `low` to `high`.
#[inline(always)]
pub fn between(low: f32, high: f32, form: &Form) -> (f32, f32) {
    if form.symmetric {
        let half = (1u32 << (form.bits - 1)) as f32;
        let scale = form.float.nearest((low.abs().max(high.abs()) / (half - 1.0)).max(SMALLEST));
        // A power of two: exact in every number type.
        return (scale, -half * scale);
    }
    let span = ((high - low) / form.highest()).max(SMALLEST);
    let (scale, edge) = if low.abs() > high.abs() { (span, low) } else { (-span, high) };
    let zero = (edge / scale).round_ties_even();
    if zero == 0.0 {
        (form.float.nearest(scale), 0.0)
    } else {
        (form.float.nearest(edge / zero), form.float.nearest(edge))
    }
}

/// The smallest scale; MLX's.
const SMALLEST: f32 = 1e-7;

/// 32 codes into `BITS` words, which are empty.
#[inline(always)]
fn pack<const BITS: usize>(codes: &[u32; 32], words: &mut [u32]) {
    let words: &mut [u32] = &mut words[..BITS];
    if 32 % BITS == 0 {
        for (word, codes) in words.iter_mut().zip(codes.chunks_exact(32 / BITS)) {
            let mut packed = 0;
            for (i, code) in codes.iter().enumerate() {
                packed |= code << (i * BITS);
            }
            *word = packed;
        }
        return;
    }
    for (i, code) in codes.iter().enumerate() {
        let (word, shift) = (i * BITS / 32, i * BITS % 32);
        words[word] |= code << shift;
        if shift + BITS > 32 {
            words[word + 1] |= code >> (32 - shift);
        }
    }
}

/// The code nearest to a weight, as a number.
#[inline(always)]
pub fn code_of(value: f32, (scale, bias): (f32, f32), form: &Form) -> f32 {
    ((value - bias) / scale).round_ties_even().clamp(0.0, form.highest())
}

/// Codes, a byte each and rows of whole 32s, as words: the reverse of [`codes`].
pub fn pack_codes(codes: &[u8], bits: usize) -> Vec<u32> {
    let mut words = vec![0; codes.len() * bits / 32];
    words.par_chunks_exact_mut(bits).zip(codes.as_chunks::<32>().0).for_each(|(words, codes)| {
        let codes = codes.map(u32::from);
        match bits {
            2 => pack::<2>(&codes, words),
            3 => pack::<3>(&codes, words),
            4 => pack::<4>(&codes, words),
            6 => pack::<6>(&codes, words),
            _ => pack::<8>(&codes, words),
        }
    });
    words
}

/// The codes of words, a byte each.
pub fn codes(words: &[u32], bits: usize) -> Vec<u8> {
    let mask = (1u64 << bits) - 1;
    let of = |words: &[u32]| -> [u8; 32] {
        std::array::from_fn(|i| {
            let (word, shift) = (i * bits / 32, i * bits % 32);
            let high = words.get(word + 1).copied().unwrap_or(0);
            ((u64::from(words[word]) | u64::from(high) << 32) >> shift & mask) as u8
        })
    };
    words.par_chunks_exact(bits).flat_map_iter(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    #[test]
    fn each_width_gives_back_its_weights_to_half_a_step() {
        let values = random(6 * 256, "w");
        for bits in BITS {
            for group in GROUPS {
                let (made, error) = round(&values, 256, &Form::new(bits, group));
                let codes = codes(&made.words, bits);
                assert_eq!(codes.len(), values.len());
                assert_eq!(pack_codes(&codes, bits), made.words, "{bits} bits");
                let back = |i: usize| f32::from(codes[i]) * made.scales[i / group] + made.biases[i / group];
                let squares: f64 = (0..values.len()).map(|i| f64::from(values[i] - back(i)).powi(2)).sum();
                assert!((squares / error - 1.0).abs() < 1e-4, "{bits} bits, {group}: {squares} {error}");
                // Half a step; at the end that is not exact up to a whole one.
                for (i, v) in values.iter().enumerate() {
                    assert!((v - back(i)).abs() <= 1.01 * made.scales[i / group].abs(), "{bits} bits, {group}");
                }
            }
        }
    }

    #[test]
    fn a_constant_group_is_exact() {
        for value in [0.0, 0.3, -2.0] {
            let (made, error) = round(&[value; 64], 64, &Form::new(3, 64));
            assert!(error < 1e-9, "{value}: {error} {made:?}");
        }
    }

    #[test]
    fn one_thread_and_three_give_the_same_bits() {
        let values = random(200 * 512, "w");
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| round(&values, 512, &Form::new(3, 64)))
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn a_symmetric_grid_has_zero_and_its_steps_are_alike_on_both_sides() {
        let mut values = random(4 * 128, "w");
        values[5] = 0.0;
        for float in [Float::F32, Float::F16, Float::Bf16] {
            for bits in BITS {
                let form = Form { symmetric: true, float, ..Form::new(bits, 64) };
                let (made, _) = round(&values, 128, &form);
                let (plain, minus) = (made.expand(128, bits, 64), values.iter().map(|v| -v).collect::<Vec<_>>());
                let (minus, _) = round(&minus, 128, &form);
                assert_eq!(plain[5], 0.0);
                // A tie may go either way, and is off by as much.
                for ((v, a), b) in values.iter().zip(&plain).zip(minus.expand(128, bits, 64)) {
                    let (off, mirrored) = ((v - a).abs(), (v + b).abs());
                    assert!((off - mirrored).abs() < 1e-5, "{bits} bits, {float:?}: {v} {a} {b}");
                }
                for (scale, bias) in made.scales.iter().zip(&made.biases) {
                    assert_eq!((float.nearest(*scale), float.nearest(*bias)), (*scale, *bias));
                }
            }
        }
    }

    #[test]
    fn rows_and_matrices_have_one_grid_each_and_finer_ones_are_nearer() {
        let mut values = random(8 * 256, "w");
        values.chunks_mut(256).enumerate().for_each(|(i, row)| row.iter_mut().for_each(|v| *v *= 1.0 + i as f32));
        let made = |per| round(&values, 256, &Form { per, ..Form::new(4, 32) });
        let [(group, fine), (channel, middle), (tensor, coarse)] = [Per::Group, Per::Channel, Per::Tensor].map(made);
        assert!(fine < middle && middle < coarse, "{fine} {middle} {coarse}");
        assert_ne!(group.scales[0], group.scales[1]);
        assert!(channel.scales.chunks(8).all(|row| row.iter().all(|s| *s == row[0])));
        assert_ne!(channel.scales[0], channel.scales[8]);
        assert!(tensor.scales.iter().all(|s| *s == tensor.scales[0]));
    }
}
