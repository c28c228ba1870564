//! Weights as GGUF's blocks (the structs of llama.cpp's `ggml-common.h`): rounding to them.
//!
//! Q8_0, Q4_0, Q4_1 and Q5_0 are to the last bit those of llama.cpp's reference. The scales of the K-quants are searched, as
//! there, for the least weighted squared error; a grid of candidates is tried on whole vectors, so that the search costs
//! little more than the rounding. Every row is rounded for itself: threads change nothing.

use half::f16;
use rayon::prelude::*;

use super::simd::{self, Kernel, byte, clamp, ends};

/// A form of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// 32 codes of 8 bits and a scale.
    Q8_0,
    /// 32 codes of 4 bits and a scale; zero is code 8.
    Q4_0,
    /// 32 codes of 4 bits, a scale and a least value.
    Q4_1,
    /// 32 codes of 5 bits and a scale; zero is code 16.
    Q5_0,
    /// 256 codes of 4 bits in eight groups, whose scales and least values have 6 bits.
    Q4K,
    /// 256 codes of 6 bits in sixteen groups, whose scales have 8 bits.
    Q6K,
}

impl Blocks {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q4K, Self::Q6K];

    /// As llama.cpp calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q4K => "Q4_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Weights of one block.
    pub fn size(self) -> usize {
        match self {
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 => SMALL,
            Self::Q4K | Self::Q6K => LARGE,
        }
    }

    /// Bytes of one block.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// What a matrix is rounded to whose rows are no whole blocks: the nearest form of small ones, as llama.cpp takes it.
    pub fn for_rows_of(self, inner: usize) -> Option<Self> {
        let small = match self {
            Self::Q4K => Self::Q5_0,
            Self::Q6K => Self::Q8_0,
            other => other,
        };
        [self, small].into_iter().find(|form| inner.is_multiple_of(form.size()))
    }

    /// The form of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.name() == name)
    }

    /// Rounds rows of `inner` weights each, a multiple of [`Self::size`].
    ///
    /// # Panics
    /// If it is not.
    pub fn round(self, values: &[f32], inner: usize) -> Vec<u8> {
        assert!(inner.is_multiple_of(self.size()) && values.len().is_multiple_of(inner.max(1)), "rows of whole blocks");
        let mut out = vec![0; values.len() / self.size() * self.bytes()];
        let parts = out.par_chunks_mut(PART / self.size() * self.bytes()).zip(values.par_chunks(PART));
        parts.for_each(|(out, values)| simd::widest(Rows { form: self, values, out }));
        out
    }
}

/// Weights of a small block.
const SMALL: usize = 32;
/// Weights of a K-quant's block.
const LARGE: usize = 256;
/// Weights that a thread rounds at a time: a multiple of either.
const PART: usize = 16 * LARGE;

struct Rows<'a> {
    form: Blocks,
    values: &'a [f32],
    out: &'a mut [u8],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Called by their names: what is handed over as a value is compiled on the way to it, without the instructions.
        macro_rules! each {
            ($round:ident) => {
                for (out, x) in self.out.chunks_exact_mut(self.form.bytes()).zip(self.values.as_chunks().0) {
                    $round(x, out);
                }
            };
        }
        match self.form {
            Blocks::Q8_0 => each!(q8_0),
            Blocks::Q4_0 => each!(q4_0),
            Blocks::Q4_1 => each!(q4_1),
            Blocks::Q5_0 => each!(q5_0),
            Blocks::Q4K => each!(q4_k),
            Blocks::Q6K => each!(q6_k),
        }
    }
}

#[inline(always)]
fn put_half(out: &mut [u8], value: f32) -> f32 {
    let half = f16::from_f32(value);
    out[..2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

#[inline(always)]
fn inverse(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { 1.0 / x }
}

/// The value of the largest magnitude, the first of equals, with its sign.
#[inline(always)]
fn edge(x: &[f32]) -> f32 {
    let (low, high) = ends(x);
    if high > -low {
        high
    } else if high < -low {
        low
    } else {
        x.iter().copied().find(|v| v.abs() == high).unwrap_or(0.0)
    }
}

#[inline(always)]
fn q8_0(x: &[f32; SMALL], out: &mut [u8]) {
    let scale = edge(x).abs() / 127.0;
    put_half(out, scale);
    let factor = inverse(scale);
    for i in 0..SMALL {
        // A tie goes away from zero.
        out[2 + i] = byte((x[i] * factor).round());
    }
}

/// Codes i and 16 + i of a block share a byte.
#[inline(always)]
fn pairs(codes: &[u8; SMALL], out: &mut [u8]) {
    for i in 0..16 {
        out[i] = codes[i] | codes[16 + i] << 4;
    }
}

#[inline(always)]
fn q4_0(x: &[f32; SMALL], out: &mut [u8]) {
    // The edge is code 0.
    let scale = edge(x) / -8.0;
    put_half(out, scale);
    let factor = inverse(scale);
    let mut codes = [0u8; SMALL];
    for i in 0..SMALL {
        // The reference is compiled to one rounding of product and sum.
        codes[i] = byte(clamp(x[i].mul_add(factor, 8.5).floor(), 0.0, 15.0));
    }
    pairs(&codes, &mut out[2..]);
}

#[inline(always)]
fn q4_1(x: &[f32; SMALL], out: &mut [u8]) {
    let (low, high) = ends(x);
    let scale = (high - low) / 15.0;
    put_half(out, scale);
    put_half(&mut out[2..], low);
    let factor = inverse(scale);
    let mut codes = [0u8; SMALL];
    for i in 0..SMALL {
        codes[i] = byte(clamp(((x[i] - low) * factor + 0.5).floor(), 0.0, 15.0));
    }
    pairs(&codes, &mut out[4..]);
}

#[inline(always)]
fn q5_0(x: &[f32; SMALL], out: &mut [u8]) {
    let scale = edge(x) / -16.0;
    put_half(out, scale);
    let factor = inverse(scale);
    let mut codes = [0u8; SMALL];
    for i in 0..SMALL {
        codes[i] = byte(clamp(x[i].mul_add(factor, 16.5).floor(), 0.0, 31.0));
    }
    // The fifth bits lie together.
    let mut fifths = 0u32;
    for (i, code) in codes.iter_mut().enumerate() {
        fifths |= u32::from(*code >> 4) << i;
        *code &= 15;
    }
    out[2..6].copy_from_slice(&fifths.to_le_bytes());
    pairs(&codes, &mut out[6..]);
}

/// A block's weights by their places in its groups: [place][group]. What is summed over a group is then summed in lanes.
#[inline(always)]
fn across<const GROUPS: usize, const SIZE: usize>(x: &[f32; LARGE]) -> [[f32; GROUPS]; SIZE] {
    let mut across = [[0.0; GROUPS]; SIZE];
    for (i, across) in across.iter_mut().enumerate() {
        for g in 0..GROUPS {
            across[g] = x[g * SIZE + i];
        }
    }
    across
}

/// Candidates on each side of the scale that just reaches the largest weight.
const TRIED_6: i32 = 9;

#[inline(always)]
fn q6_k(x: &[f32; LARGE], out: &mut [u8]) {
    let scales = scales_of_6(x);
    let edge = edge(&scales);
    let whole = put_half(&mut out[208..], edge / -128.0);
    let factor = inverse(edge / -128.0);
    let mut codes = [0u8; LARGE];
    for (g, (x, codes)) in x.as_chunks::<16>().0.iter().zip(codes.as_chunks_mut::<16>().0).enumerate() {
        let scale = clamp((scales[g] * factor).round_ties_even(), -128.0, 127.0);
        out[192 + g] = scale as i8 as u8;
        let per = inverse(whole * scale);
        for i in 0..16 {
            codes[i] = byte(clamp((x[i] * per).round_ties_even(), -32.0, 31.0) + 32.0);
        }
    }
    // Each half of 128: low four bits of codes l and 64 + l share a byte, high two of l, 32 + l, 64 + l and 96 + l.
    for (half, codes) in codes.as_chunks::<128>().0.iter().enumerate() {
        for l in 0..64 {
            out[half * 64 + l] = codes[l] & 15 | (codes[64 + l] & 15) << 4;
        }
        for l in 0..32 {
            out[128 + half * 32 + l] =
                codes[l] >> 4 | codes[32 + l] >> 4 << 2 | codes[64 + l] >> 4 << 4 | codes[96 + l] >> 4 << 6;
        }
    }
}

/// Of each group of sixteen weights the scale whose codes -32 to 31 have the least squared error, each weighted by its square:
/// large weights are to be right.
#[inline(always)]
fn scales_of_6(x: &[f32; LARGE]) -> [f32; 16] {
    let x = across::<16, 16>(x);
    let (mut most, mut edge) = ([0.0f32; 16], [0.0f32; 16]);
    for x in &x {
        for g in 0..16 {
            let larger = x[g].abs() > most[g];
            most[g] = if larger { x[g].abs() } else { most[g] };
            edge[g] = if larger { x[g] } else { edge[g] };
        }
    }
    let (mut best, mut scales) = ([-1.0f32; 16], [0.0f32; 16]);
    for step in -TRIED_6..=TRIED_6 {
        let mut factor = [0.0f32; 16];
        for g in 0..16 {
            factor[g] = -(32.0 + 0.1 * step as f32) / edge[g];
        }
        let (mut with_x, mut with_code) = ([0.0f32; 16], [0.0f32; 16]);
        for x in &x {
            for g in 0..16 {
                let code = clamp((x[g] * factor[g]).round_ties_even(), -32.0, 31.0);
                let weighted = x[g] * x[g] * code;
                with_x[g] = weighted.mul_add(x[g], with_x[g]);
                with_code[g] = weighted.mul_add(code, with_code[g]);
            }
        }
        // The error of the best scale for these codes is the weights' own square less `square / with_code`.
        for g in 0..16 {
            let square = with_x[g] * with_x[g];
            let nearer = (with_code[g] > 0.0) & (square > best[g] * with_code[g]);
            let (reached, scale) = (square / with_code[g], with_x[g] / with_code[g]);
            best[g] = if nearer { reached } else { best[g] };
            scales[g] = if nearer { scale } else { scales[g] };
        }
    }
    for g in 0..16 {
        scales[g] = if most[g] < 1e-15 { 0.0 } else { scales[g] };
    }
    scales
}

/// Candidates of the number of steps between the least and the largest weight of a group, from 14 to 16.
const TRIED_4: i32 = 20;

#[inline(always)]
fn q4_k(x: &[f32; LARGE], out: &mut [u8]) {
    let (scales, leasts) = grids_of_4(x);
    let (most, deepest) = (scales.iter().copied().fold(0.0, f32::max), leasts.iter().copied().fold(0.0, f32::max));
    let (whole, least) = (put_half(out, most / 63.0), put_half(&mut out[2..], deepest / 63.0));
    let (per_scale, per_least) = (inverse(most / 63.0), inverse(deepest / 63.0));
    let mut codes = [0u8; LARGE];
    for (g, (x, codes)) in x.as_chunks::<32>().0.iter().zip(codes.as_chunks_mut::<32>().0).enumerate() {
        let scale = clamp((scales[g] * per_scale).round_ties_even(), 0.0, 63.0) as u8;
        let depth = clamp((leasts[g] * per_least).round_ties_even(), 0.0, 63.0) as u8;
        put_six_bits(&mut out[4..16], g, scale, depth);
        let (factor, depth) = (inverse(whole * f32::from(scale)), least * f32::from(depth));
        for i in 0..32 {
            codes[i] = byte(clamp(((x[i] + depth) * factor).round_ties_even(), 0.0, 15.0));
        }
    }
    // Groups 2j and 2j + 1 share bytes.
    for (j, codes) in codes.as_chunks::<64>().0.iter().enumerate() {
        for i in 0..32 {
            out[16 + j * 32 + i] = codes[i] | codes[32 + i] << 4;
        }
    }
}

/// Scale and minimum number g of the eight that share twelve bytes.
#[inline(always)]
fn put_six_bits(packed: &mut [u8], g: usize, scale: u8, least: u8) {
    if g < 4 {
        packed[g] |= scale;
        packed[g + 4] |= least;
    } else {
        packed[g + 4] |= scale & 15 | (least & 15) << 4;
        packed[g - 4] |= scale >> 4 << 6;
        packed[g] |= least >> 4 << 6;
    }
}

/// Of each group of 32 weights the scale and the depth below zero whose codes 0 to 15 have the least squared error, each
/// weighted by its magnitude and the group's: `x = scale * code - depth`. A group that has no negative weight begins at zero.
#[inline(always)]
fn grids_of_4(x: &[f32; LARGE]) -> ([f32; 8], [f32; 8]) {
    let x = across::<8, 32>(x);
    let (mut low, mut high, mut squares) = ([0.0f32; 8], [f32::NEG_INFINITY; 8], [0.0f32; 8]);
    for x in &x {
        for g in 0..8 {
            low[g] = if x[g] < low[g] { x[g] } else { low[g] };
            high[g] = if x[g] > high[g] { x[g] } else { high[g] };
            squares[g] = x[g].mul_add(x[g], squares[g]);
        }
    }
    let mut mean = [0.0f32; 8];
    for g in 0..8 {
        mean[g] = (squares[g] / 32.0).sqrt();
    }
    let mut weights = [[0.0f32; 8]; 32];
    let (mut total, mut total_x) = ([0.0f32; 8], [0.0f32; 8]);
    for (x, weights) in x.iter().zip(&mut weights) {
        for g in 0..8 {
            weights[g] = mean[g] + x[g].abs();
            total[g] += weights[g];
            total_x[g] = weights[g].mul_add(x[g], total_x[g]);
        }
    }
    let mut best = [f32::INFINITY; 8];
    let mut scales = [0.0f32; 8];
    for g in 0..8 {
        scales[g] = (high[g] - low[g]) / 15.0;
    }
    let mut offsets = low;
    for step in 0..=TRIED_4 {
        let mut factor = [0.0f32; 8];
        for g in 0..8 {
            factor[g] = (14.0 + 0.1 * step as f32) / (high[g] - low[g]);
        }
        let mut codes = [[0.0f32; 8]; 32];
        let (mut codes_w, mut squares_w, mut products_w) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
        for ((x, weights), codes) in x.iter().zip(&weights).zip(&mut codes) {
            for g in 0..8 {
                let code = clamp(((x[g] - low[g]) * factor[g]).round_ties_even(), 0.0, 15.0);
                let weighted = weights[g] * code;
                codes[g] = code;
                codes_w[g] += weighted;
                squares_w[g] = weighted.mul_add(code, squares_w[g]);
                products_w[g] = weighted.mul_add(x[g], products_w[g]);
            }
        }
        let (mut scale, mut offset, mut determinant) = ([0.0f32; 8], [0.0f32; 8], [0.0f32; 8]);
        for g in 0..8 {
            determinant[g] = total[g] * squares_w[g] - codes_w[g] * codes_w[g];
            // Least squares of scale and offset for these codes; an offset above zero cannot be kept.
            let free = (total[g] * products_w[g] - total_x[g] * codes_w[g]) / determinant[g];
            let at = (squares_w[g] * total_x[g] - codes_w[g] * products_w[g]) / determinant[g];
            let from_zero = products_w[g] / squares_w[g];
            scale[g] = if at > 0.0 { from_zero } else { free };
            offset[g] = if at > 0.0 { 0.0 } else { at };
        }
        let mut error = [0.0f32; 8];
        for ((x, weights), codes) in x.iter().zip(&weights).zip(&codes) {
            for g in 0..8 {
                let off = scale[g].mul_add(codes[g], offset[g]) - x[g];
                error[g] = (weights[g] * off).mul_add(off, error[g]);
            }
        }
        for g in 0..8 {
            let nearer = (determinant[g] > 0.0) & (error[g] < best[g]);
            best[g] = if nearer { error[g] } else { best[g] };
            scales[g] = if nearer { scale[g] } else { scales[g] };
            offsets[g] = if nearer { offset[g] } else { offsets[g] };
        }
    }
    for g in 0..8 {
        let flat = high[g] <= low[g];
        scales[g] = if flat || scales[g] < 0.0 { 0.0 } else { scales[g] };
        offsets[g] = if flat { -low[g] } else { -offsets[g] };
    }
    (scales, offsets)
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    use super::*;
    use crate::gguf;
    use crate::rng::Rng;

    fn drawn(n: usize) -> Vec<f32> {
        let mut rng = Rng::new(1, "weights");
        (0..n).map(|_| 0.02 * rng.normal()).collect()
    }

    fn error(form: Blocks, values: &[f32], inner: usize) -> f64 {
        relative(values, &gguf::expand(form, &form.round(values, inner), values.len()).expect("its own bytes"))
    }

    fn relative(values: &[f32], found: &[f32]) -> f64 {
        let square = |of: &mut dyn Iterator<Item = f64>| of.map(|v| v * v).sum::<f64>();
        let off = square(&mut values.iter().zip(found).map(|(a, b)| f64::from(a - b)));
        (off / square(&mut values.iter().map(|v| f64::from(*v)))).sqrt()
    }

    #[test]
    fn no_form_errs_more_than_candles() {
        let values = drawn(64 * 512);
        let floats = Tensor::from_vec(values.clone(), (64, 512), &Device::Cpu).expect("fits");
        for form in Blocks::ALL {
            let theirs = QTensor::quantize(&floats, gguf::kind(form)).expect("rounds");
            let theirs = theirs.dequantize(&Device::Cpu).and_then(|t| t.flatten_all()?.to_vec1()).expect("floats");
            let (ours, theirs) = (error(form, &values, 512), relative(&values, &theirs));
            assert!(ours < 1.001 * theirs && ours > 0.5 * theirs, "{form:?}: {ours} {theirs}");
        }
    }

    #[test]
    fn odd_blocks_are_kept() {
        for form in Blocks::ALL {
            for values in [vec![0.0; 512], vec![0.25; 512], vec![-1.5; 512]] {
                assert!(
                    error(form, &values, 256).is_nan() || error(form, &values, 256) < 0.01,
                    "{form:?} {}",
                    values[0]
                );
            }
        }
    }

    #[test]
    fn one_thread_and_three_give_the_same_bytes() {
        let values = drawn(40 * 512);
        for form in Blocks::ALL {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| form.round(&values, 512))
            };
            assert_eq!(run(1), run(3), "{form:?}");
        }
    }
}
