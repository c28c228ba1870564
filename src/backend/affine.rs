//! Weights as group-wise affine codes, MLX's form: `w = code * scale + bias`, codes of 2, 3, 4, 6 or 8 bits.
//!
//! The grid is MLX's (`affine_quantize` in its `ops.cpp`): the end of the larger magnitude is exact, zero is on the grid,
//! ties go to the even code. Codes lie as one stream of bits in a row's 32-bit words, low bits first; that is MLX's packing for
//! every width, those that do not divide a word too. One pass: a group is read, rounded, packed and its error summed while
//! it is in the first cache.

use rayon::prelude::*;

use super::simd::{self, Kernel};

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
        let codes = codes(&self.words, bits);
        let mut values = vec![0.0; codes.len()];
        debug_assert!(inner.is_multiple_of(group));
        let parts = values.par_chunks_exact_mut(group).zip(codes.par_chunks_exact(group));
        parts.zip(&self.scales).zip(&self.biases).for_each(|(((values, codes), scale), bias)| {
            values.iter_mut().zip(codes).for_each(|(v, code)| *v = f32::from(*code) * scale + bias);
        });
        values
    }
}

/// The widths of codes.
pub const BITS: [usize; 5] = [2, 3, 4, 6, 8];
/// Weights that may share a scale.
pub const GROUPS: [usize; 3] = [32, 64, 128];

/// Rounds a matrix to the nearest codes; also the sum of its squared errors.
///
/// # Panics
/// If `bits` is not one of [`BITS`], or `group` none of [`GROUPS`] or no divisor of `inner`.
pub fn round(values: &[f32], inner: usize, bits: usize, group: usize) -> (Affine, f64) {
    assert!(BITS.contains(&bits) && GROUPS.contains(&group), "{bits} bits in groups of {group}");
    assert!(inner.is_multiple_of(group) && values.len().is_multiple_of(inner.max(1)), "rows of whole groups");
    let groups = values.len() / group;
    let mut made =
        Affine { words: vec![0; values.len() * bits / 32], scales: vec![0.0; groups], biases: vec![0.0; groups] };
    let rows = (PART / inner).max(1);
    let (per_row, in_row) = (inner * bits / 32, inner / group);
    let parts = values.par_chunks(rows * inner).zip(made.words.par_chunks_mut(rows * per_row));
    let parts = parts.zip(made.scales.par_chunks_mut(rows * in_row)).zip(made.biases.par_chunks_mut(rows * in_row));
    let errors: Vec<f64> = parts
        .map(|(((values, words), scales), biases)| simd::widest(Part { bits, group, values, words, scales, biases }))
        .collect();
    // In the order of the rows, so that threads change nothing.
    (made, errors.iter().sum())
}

/// Weights that a thread takes at a time.
const PART: usize = 1 << 14;

struct Part<'a> {
    bits: usize,
    group: usize,
    values: &'a [f32],
    words: &'a mut [u32],
    scales: &'a mut [f32],
    biases: &'a mut [f32],
}

impl Kernel for Part<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let levels = ((1u32 << self.bits) - 1) as f32;
        let words = self.words.chunks_exact_mut(self.group * self.bits / 32);
        let groups = self.values.chunks_exact(self.group).zip(words).zip(self.scales).zip(self.biases);
        let mut error = 0.0f64;
        for (((values, words), scale), bias) in groups {
            (*scale, *bias) = grid(values, levels);
            for (values, words) in values.as_chunks::<32>().0.iter().zip(words.chunks_exact_mut(self.bits)) {
                let (mut codes, mut off) = ([0u32; 32], [0.0f32; 32]);
                for i in 0..32 {
                    let code = ((values[i] - *bias) / *scale).round_ties_even().clamp(0.0, levels);
                    codes[i] = code as u32;
                    off[i] = values[i] - (code * *scale + *bias);
                }
                let mut squares = [0.0f32; 8];
                for part in off.as_chunks::<8>().0 {
                    for i in 0..8 {
                        squares[i] = part[i].mul_add(part[i], squares[i]);
                    }
                }
                error += f64::from(squares.iter().sum::<f32>());
                match self.bits {
                    2 => pack::<2>(&codes, words),
                    3 => pack::<3>(&codes, words),
                    4 => pack::<4>(&codes, words),
                    6 => pack::<6>(&codes, words),
                    _ => pack::<8>(&codes, words),
                }
            }
        }
        error
    }
}

/// Scale and bias of a group.
#[inline(always)]
fn grid(group: &[f32], levels: f32) -> (f32, f32) {
    let (mut lows, mut highs) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    for part in group.as_chunks::<16>().0 {
        for i in 0..16 {
            lows[i] = lows[i].min(part[i]);
            highs[i] = highs[i].max(part[i]);
        }
    }
    let (low, high) =
        (lows.into_iter().fold(f32::INFINITY, f32::min), highs.into_iter().fold(f32::NEG_INFINITY, f32::max));
    let span = ((high - low) / levels).max(1e-7);
    let (scale, edge) = if low.abs() > high.abs() { (span, low) } else { (-span, high) };
    let zero = (edge / scale).round_ties_even();
    if zero == 0.0 { (scale, 0.0) } else { (edge / zero, edge) }
}

/// 32 codes into `BITS` words.
#[inline(always)]
fn pack<const BITS: usize>(codes: &[u32; 32], words: &mut [u32]) {
    let words: &mut [u32] = &mut words[..BITS];
    for (i, code) in codes.iter().enumerate() {
        let (word, shift) = (i * BITS / 32, i * BITS % 32);
        words[word] |= code << shift;
        if shift + BITS > 32 {
            words[word + 1] |= code >> (32 - shift);
        }
    }
}

/// Scale and bias of one group's grid.
pub fn grid_of(group: &[f32], bits: usize) -> (f32, f32) {
    grid(group, ((1u32 << bits) - 1) as f32)
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
    use crate::backend::rng::random;

    #[test]
    fn each_width_gives_back_its_weights_to_half_a_step() {
        let values = random(6 * 256, "w");
        for bits in BITS {
            for group in GROUPS {
                let (made, error) = round(&values, 256, bits, group);
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
            let (made, error) = round(&[value; 64], 64, 3, 64);
            assert!(error < 1e-9, "{value}: {error} {made:?}");
        }
    }

    #[test]
    fn one_thread_and_three_give_the_same_bits() {
        let values = random(200 * 512, "w");
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| round(&values, 512, 3, 64))
        };
        assert_eq!(run(1), run(3));
    }
}
