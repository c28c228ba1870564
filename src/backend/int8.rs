//! Matrices of int8, multiplied by activations that are rounded to int8 as they come ("dynamic", W8A8).
//!
//! A weight is `code * scale` with a scale for each row (an output channel); an activation likewise with a scale for each
//! row of `x` (a token), found at run time. Both are symmetric, codes in [-127, 127], ties to the even code. The rows' own
//! scales are those of ZeroQuant (Yao and others, 2022) and of LLM.int8's vector-wise product (Dettmers and others, 2022)
//! less its outliers; onnxruntime's `quantize_dynamic` differs in one unsigned scale for all of `x`.
//!
//! `y[n, o] = (sum of codes' products) * (scale_x[n] * scale_w[o])`. The sum is of whole numbers and exact, and what follows
//! is rounded one by one in one order: the bits are the same on every instruction set and for any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::Then;
use super::simd::int8::{self as codes, Left, Level, PANEL, Panel, STEP, Scratch};
use super::simd::{self, Kernel};

/// The largest code.
const LAST: f32 = 127.0;
/// The largest inner length whose sums are in 32 bits for any codes, -128 of other tools' weights too.
pub const LONGEST: usize = (i32::MAX / (127 * 128)) as usize;

/// Up to so many rows, the threads share the columns.
const FEW: usize = 64;
/// Codes of rows that are multiplied together: they and a panel stay in the second cache.
const BLOCK: usize = 1 << 17;
/// Products that a thread takes at a time.
const PART: usize = 1 << 18;

/// A matrix [rows, inner] in codes of int8.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Int8 {
    /// Rows: what the product gives for each row of `x`.
    pub rows: usize,
    /// Length of a row.
    pub inner: usize,
    /// `[rows, inner]`, in [-127, 127] where effai rounded them; -128 may come from elsewhere.
    pub codes: Vec<i8>,
    /// `[rows]`
    pub scales: Vec<f32>,
}

impl Int8 {
    /// Rounds a matrix to the nearest codes, the largest magnitude of a row to 127; also the sum of its squared errors.
    ///
    /// A row of zeros, or of less than about 1e-36, has scale 0; one with a number that is not finite has scale NaN.
    ///
    /// # Panics
    /// If `values` are no whole rows.
    pub fn round(values: &[f32], inner: usize) -> (Self, f64) {
        assert!(values.len().is_multiple_of(inner.max(1)), "whole rows");
        let rows = values.len() / inner.max(1);
        let mut made = Self { rows, inner, codes: vec![0; values.len()], scales: vec![0.0; rows] };
        let parts = values.par_chunks(inner.max(1)).zip(made.codes.par_chunks_mut(inner.max(1)));
        let errors: Vec<f64> = parts
            .zip(&mut made.scales)
            .with_min_len(((1 << 14) / inner.max(1)).max(1))
            .map(|((values, codes), scale)| simd::widest(RoundRow { values, codes, scale }))
            .collect();
        // In the order of the rows, so that threads change nothing.
        (made, errors.iter().sum())
    }

    /// The same with the largest magnitude of a row at 63: processors without a product of bytes add two products in 16
    /// bits, which hold them then.
    ///
    /// # Panics
    /// If `values` are no whole rows.
    pub fn round_to_seven_bits(values: &[f32], inner: usize) -> Self {
        assert!(values.len().is_multiple_of(inner.max(1)), "whole rows");
        let (mut codes, mut scales) = (Vec::with_capacity(values.len()), Vec::new());
        for row in values.chunks_exact(inner.max(1)) {
            let scale = row.iter().fold(0.0f32, |top, v| top.max(v.abs())) / 63.0;
            // Beside a row of zeros nothing is divided by zero.
            let steps = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            codes.extend(row.iter().map(|v| (v * steps).round() as i8));
            scales.push(scale);
        }
        Self { rows: scales.len(), inner, codes, scales }
    }

    /// The weights, row after row.
    pub fn expand(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.codes.len()];
        let inner = self.inner.max(1);
        let rows = values.par_chunks_mut(inner).zip(self.codes.par_chunks(inner)).zip(&self.scales);
        rows.for_each(|((values, codes), scale)| {
            values.iter_mut().zip(codes).for_each(|(v, code)| *v = f32::from(*code) * scale);
        });
        values
    }
}

struct RoundRow<'a> {
    values: &'a [f32],
    codes: &'a mut [i8],
    scale: &'a mut f32,
}

impl Kernel for RoundRow<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        *self.scale = scale(self.values);
        if *self.scale == 0.0 || self.scale.is_nan() {
            // The codes stay zero.
            return self.values.iter().map(|v| f64::from(*v).powi(2)).sum();
        }
        let scale = *self.scale;
        let one = |v: f32, code: &mut i8| {
            let rounded = (v / scale).round_ties_even().clamp(-LAST, LAST);
            *code = rounded as i8;
            let off = f64::from(v - rounded * scale);
            off * off
        };
        let mut squares = [0.0f64; 16];
        let ((parts, rest), (codes, last)) = (self.values.as_chunks::<16>(), self.codes.as_chunks_mut::<16>());
        for (part, codes) in parts.iter().zip(codes) {
            for i in 0..16 {
                squares[i] += one(part[i], &mut codes[i]);
            }
        }
        squares.iter().sum::<f64>() + rest.iter().zip(last).map(|(v, code)| one(*v, code)).sum::<f64>()
    }
}

/// The scale of a row: its largest magnitude over 127. Zero where that would be subnormal, and NaN where the row has a number
/// that is not finite.
#[inline(always)]
fn scale(row: &[f32]) -> f32 {
    // Magnitudes are in the order of their bits, and NaN is beyond infinity.
    let largest = row.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    let scale = largest / LAST;
    match largest.is_finite() {
        true if scale < f32::MIN_POSITIVE => 0.0,
        true => scale,
        false => f32::NAN,
    }
}

struct Scale<'a>(&'a [f32]);

impl Kernel for Scale<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        scale(self.0)
    }
}

/// A matrix of int8 in the order in which its product reads it, that of this processor's instructions: made once, and not to
/// be kept in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Bytes {
    level: Level,
    rows: usize,
    inner: usize,
    /// `inner`, filled up.
    padded: usize,
    /// [rows / PANEL, padded / 4, 4 PANEL]
    panels: Vec<i8>,
    /// [rows / PANEL, PANEL]: where sums start.
    starts: Vec<[i32; PANEL]>,
    /// [rows / PANEL, PANEL]
    scales: Vec<[f32; PANEL]>,
}

impl Bytes {
    /// Prepares a matrix.
    ///
    /// # Panics
    /// If its lengths do not fit, or rows are longer than 132,104.
    pub fn new(matrix: Int8) -> Self {
        Self::at(&matrix, codes::level())
    }

    fn at(matrix: &Int8, level: Level) -> Self {
        let (rows, inner) = (matrix.rows, matrix.inner);
        assert!(matrix.codes.len() == rows * inner && matrix.scales.len() == rows, "a matrix of codes");
        assert!(inner <= LONGEST, "sums of 32 bits");
        let padded = inner.next_multiple_of(STEP);
        let count = rows.div_ceil(PANEL);
        let mut panels = vec![0; count * PANEL * padded];
        let (mut starts, mut scales) = (vec![[0; PANEL]; count], vec![[0.0; PANEL]; count]);
        for (row, scale) in matrix.scales.iter().enumerate() {
            scales[row / PANEL][row % PANEL] = *scale;
        }
        let parts = panels.par_chunks_mut((PANEL * padded).max(1)).zip(&mut starts);
        parts.enumerate().for_each(|(p, (panel, starts))| {
            let mut codes = vec![0; padded];
            for (j, start) in starts.iter_mut().take(rows - p * PANEL).enumerate() {
                codes[..inner].copy_from_slice(&matrix.codes[(p * PANEL + j) * inner..][..inner]);
                *start = level.column_start(&codes);
                let places = [0, 1, 2, 3].map(|i| level.place(j, i));
                let quads = panel.as_chunks_mut::<{ 4 * PANEL }>().0.iter_mut().zip(codes.as_chunks::<4>().0);
                quads.for_each(|(quad, codes)| places.iter().zip(codes).for_each(|(at, code)| quad[*at] = *code));
            }
        });
        Self { level, rows, inner, padded, panels, starts, scales }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Length of a row.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.panels.len() + 8 * PANEL * self.scales.len()
    }

    /// Writes one row's codes.
    fn unpack(&self, row: usize, out: &mut [i8]) {
        let panel = &self.panels[row / PANEL * PANEL * self.padded..][..PANEL * self.padded];
        let places = [0, 1, 2, 3].map(|i| self.level.place(row % PANEL, i));
        for (out, quad) in out.chunks_mut(4).zip(panel.as_chunks::<{ 4 * PANEL }>().0) {
            out.iter_mut().zip(places).for_each(|(code, at)| *code = quad[at]);
        }
    }

    /// Some rows, in their order.
    fn matrix(&self, order: &[usize]) -> Int8 {
        let mut codes = vec![0; order.len() * self.inner];
        codes.par_chunks_mut(self.inner.max(1)).zip(order).for_each(|(out, row)| self.unpack(*row, out));
        let scales = order.iter().map(|row| self.scales[row / PANEL][row % PANEL]).collect();
        Int8 { rows: order.len(), inner: self.inner, codes, scales }
    }

    /// One row's weights.
    pub fn row(&self, row: usize) -> Vec<f32> {
        self.matrix(&[row]).expand()
    }

    /// All weights, row after row.
    pub fn expand(&self) -> Vec<f32> {
        self.matrix(&(0..self.rows).collect::<Vec<_>>()).expand()
    }

    /// The rows in another order.
    #[must_use]
    pub fn with_rows(&self, order: &[usize]) -> Self {
        Self::at(&self.matrix(order), self.level)
    }

    /// Some rows of `x` in codes.
    fn quantize(&self, x: &[f32]) -> Left {
        let mut left = Left::new(self.level, x.len() / self.inner, self.padded);
        for (row, x) in x.chunks_exact(self.inner).enumerate() {
            left.set(row, x, simd::widest(Scale(x)));
        }
        left
    }

    /// Rows of codes by some panels, into rows of `stride`.
    fn multiply(&self, left: &Left, panels: Range<usize>, out: &mut [f32], stride: usize) {
        let mut scratch = Scratch::default();
        let panel = |p: usize| Panel {
            codes: &self.panels[p * PANEL * self.padded..][..PANEL * self.padded],
            starts: &self.starts[p],
            scales: &self.scales[p],
            width: PANEL.min(self.rows - p * PANEL),
        };
        for p in panels.clone().step_by(2) {
            let pair = [panel(p), panel((p + 1).min(panels.end - 1))];
            let (count, column) = ((panels.end - p).min(2), (p - panels.start) * PANEL);
            codes::multiply(left, &pair[..count], &mut out[column..], stride, &mut scratch);
        }
    }

    /// `x [n, inner] x self^T -> [n, rows]`, each row of `x` rounded to int8 at its own scale, and what follows.
    ///
    /// A row with a number that is not finite gives NaN.
    ///
    /// # Panics
    /// If `x` is not of whole rows.
    pub fn product(&self, x: &[f32], then: Then<'_>) -> Vec<f32> {
        let (columns, inner) = (self.rows, self.inner);
        let n = x.len() / inner.max(1);
        assert!(x.len() == n * inner, "whole rows");
        let mut out = vec![0.0; n * columns];
        if out.is_empty() {
            return out;
        }
        if n > FEW {
            // Each thread takes some blocks.
            let most = (BLOCK / self.padded).clamp(32, 256);
            let block = (n / (4 * rayon::current_num_threads())).clamp(32, most).next_multiple_of(16);
            out.par_chunks_mut(block * columns).zip(x.par_chunks(block * inner)).for_each(|(out, x)| {
                self.multiply(&self.quantize(x), 0..self.scales.len(), out, columns);
                then.apply(out);
            });
            return out;
        }
        let left = self.quantize(x);
        let (panels, strip) = (self.scales.len(), (PART / (n * self.padded * PANEL)).max(1));
        if strip >= panels || rayon::current_num_threads() == 1 {
            self.multiply(&left, 0..panels, &mut out, columns);
        } else {
            // Few rows: the threads share the columns.
            let whole = strip * PANEL;
            let strips: Vec<Vec<f32>> = (0..panels.div_ceil(strip))
                .into_par_iter()
                .map(|s| {
                    let width = whole.min(columns - s * whole);
                    let mut part = vec![0.0; n * width];
                    self.multiply(&left, s * strip..panels.min((s + 1) * strip), &mut part, width);
                    part
                })
                .collect();
            for (s, part) in strips.iter().enumerate() {
                let width = part.len() / n;
                for (row, part) in part.chunks_exact(width).enumerate() {
                    out[row * columns + s * whole..][..width].copy_from_slice(part);
                }
            }
        }
        then.apply(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    /// The levels of this processor.
    fn here() -> impl Iterator<Item = Level> {
        codes::LEVELS.into_iter().filter(|level| level.is_here())
    }

    fn matrix(rows: usize, inner: usize) -> Int8 {
        Int8::round(&random(rows * inner, "w"), inner).0
    }

    /// The product in plain sums of 64 bits, the codes found one by one.
    fn plain(x: &[f32], n: usize, matrix: &Int8) -> Vec<f32> {
        let mut out = Vec::new();
        for x in (0..n).map(|i| &x[i * matrix.inner..][..matrix.inner]) {
            let scale = x.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let codes: Vec<i64> = x.iter().map(|v| (v * inverse).round_ties_even() as i64).collect();
            assert!(codes.iter().all(|code| code.abs() <= 127));
            for row in 0..matrix.rows {
                let weights = &matrix.codes[row * matrix.inner..][..matrix.inner];
                let sum: i64 = codes.iter().zip(weights).map(|(x, w)| x * i64::from(*w)).sum();
                out.push(sum as f32 * (scale * matrix.scales[row]));
            }
        }
        out
    }

    const SHAPES: [(usize, usize, usize); 14] = [
        (1, 1, 1),
        (1, 384, 100),
        (2, 5, 3),
        (3, 100, 70),
        (4, 16, 16),
        (5, 33, 17),
        (13, 31, 50),
        (16, 64, 15),
        (23, 520, 33),
        (64, 48, 31),
        (65, 7, 40),
        (131, 1100, 20),
        (200, 96, 64),
        (70, 20, 1),
    ];

    #[test]
    fn products_are_those_of_the_codes_to_the_bit_on_every_level() {
        for (n, inner, rows) in SHAPES {
            let (x, matrix) = (random(n * inner, "x"), matrix(rows, inner));
            let expected = plain(&x, n, &matrix);
            assert_eq!(Bytes::new(matrix.clone()).product(&x, Then::Nothing), expected, "{n} {inner} {rows}");
            for level in here() {
                let found = Bytes::at(&matrix, level).product(&x, Then::Nothing);
                assert_eq!(found, expected, "{level:?}: {n} {inner} {rows}");
            }
        }
    }

    #[test]
    fn products_are_near_those_of_the_floats() {
        for (n, inner, rows) in SHAPES {
            let (x, w) = (random(n * inner, "x"), random(rows * inner, "w"));
            let (matrix, error) = Int8::round(&w, inner);
            let expanded = matrix.expand();
            let squares: f64 = w.iter().zip(&expanded).map(|(w, e)| f64::from(w - e).powi(2)).sum();
            assert!((squares - error).abs() <= 1e-6 * error, "{squares} {error}");
            for (i, (w, e)) in w.iter().zip(&expanded).enumerate() {
                assert!((w - e).abs() <= 0.5001 * matrix.scales[i / inner], "half a step");
            }
            let found = Bytes::new(matrix.clone()).product(&x, Then::Nothing);
            for (i, found) in found.iter().enumerate() {
                let (x, e) = (&x[i / rows * inner..][..inner], &expanded[i % rows * inner..][..inner]);
                let right: f64 = x.iter().zip(e).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                // An activation is off by half a step at most.
                let step = f64::from(x.iter().fold(0.0f32, |most, v| most.max(v.abs()))) / 127.0;
                let bound = e.iter().map(|w| f64::from(w.abs())).sum::<f64>() * step * 0.5001 + 1e-4;
                assert!((f64::from(*found) - right).abs() <= bound, "{found} {right} {bound}");
            }
        }
    }

    #[test]
    fn the_largest_codes_do_not_saturate() {
        for level in here() {
            for inner in [4, 30, 1536] {
                for (x, w) in [(1.0, 1.0), (-1.0, 1.0), (1.0, -1.0), (-1.0, -1.0)] {
                    let (x, w) = (vec![x; 21 * inner], vec![w; 35 * inner]);
                    let matrix = Int8::round(&w, inner).0;
                    assert!(matrix.codes.iter().all(|code| code.abs() == 127));
                    let found = Bytes::at(&matrix, level).product(&x, Then::Nothing);
                    let sum = (127 * 127 * inner) as f32 * x[0] * w[0];
                    assert!(found.iter().all(|v| *v == sum * (1.0 / 127.0 * (1.0 / 127.0))), "{level:?}");
                }
            }
        }
        // Signs that alternate, so that parts of the sums are as large as they can be.
        for level in here() {
            let x: Vec<f32> = (0..8 * 64).map(|i| if i / 2 % 2 == 0 { 1.0 } else { -1.0 }).collect();
            let matrix = Int8::round(&x[..4 * 64], 64).0;
            assert_eq!(Bytes::at(&matrix, level).product(&x, Then::Nothing), plain(&x, 8, &matrix));
        }
    }

    #[test]
    fn zeros_and_numbers_that_are_not_finite() {
        let inner = 20;
        for level in here() {
            for n in [5, 100] {
                let mut x = random(n * inner, "x");
                x[..inner].fill(0.0);
                x[inner + 3] = f32::NAN;
                x[2 * inner + 7] = f32::INFINITY;
                x[3 * inner + 19] = f32::NEG_INFINITY;
                x[4 * inner..5 * inner].fill(1e-40);
                let mut w = random(18 * inner, "w");
                w[inner..2 * inner].fill(0.0);
                w[2 * inner] = f32::NAN;
                w[3 * inner] = f32::INFINITY;
                let (matrix, error) = Int8::round(&w, inner);
                assert!(!error.is_finite() && matrix.scales[1] == 0.0);
                assert!(matrix.scales[2].is_nan() && matrix.scales[3].is_nan());
                assert!(matrix.codes[inner..4 * inner].iter().all(|code| *code == 0));
                let found = Bytes::at(&matrix, level).product(&x, Then::Nothing);
                for (i, v) in found.iter().enumerate() {
                    match (i / 18, i % 18) {
                        (1..=3, _) | (_, 2 | 3) => assert!(v.is_nan(), "{level:?}: {i} {v}"),
                        (0 | 4, _) | (_, 1) => assert_eq!(*v, 0.0, "{level:?}: {i}"),
                        _ => assert!(v.is_finite() && *v != 0.0, "{level:?}: {i} {v}"),
                    }
                }
            }
        }
    }

    #[test]
    fn codes_tie_to_even_and_magnitudes_may_be_extreme() {
        // Scale 2: halves of it lie between two codes.
        let (matrix, _) = Int8::round(&[254.0, 1.0, 3.0, 5.0, -1.0, -3.0], 6);
        assert_eq!((matrix.scales[0], &matrix.codes[..]), (2.0, &[127i8, 0, 2, 2, 0, -2][..]));
        for level in here() {
            let one = Bytes::at(&Int8 { rows: 1, inner: 1, codes: vec![1], scales: vec![1.0] }, level);
            for v in [3e38, -3e38, 1e-35, -2e-36] {
                let found = one.product(&[v], Then::Nothing)[0];
                assert!((found / v - 1.0).abs() < 1e-6, "{level:?}: {v} {found}");
            }
            let ones = Int8 {
                rows: 6,
                inner: 6,
                codes: (0..36).map(|i| i8::from(i % 7 == 0)).collect(),
                scales: vec![1.0; 6],
            };
            let found = Bytes::at(&ones, level).product(&[254.0, 1.0, 3.0, 5.0, -1.0, -3.0], Then::Nothing);
            assert_eq!(found, [254.0, 0.0, 4.0, 4.0, 0.0, -4.0], "{level:?}");
        }
    }

    #[test]
    fn empty_shapes_and_what_follows() {
        let matrix = matrix(5, 8);
        assert!(Bytes::new(matrix.clone()).product(&[], Then::Nothing).is_empty());
        let bias = [1.0, 2.0, 3.0, 4.0, 5.0];
        for (rows, inner) in [(0, 8), (5, 0), (0, 0)] {
            let none = Bytes::new(Int8 { rows, inner, codes: Vec::new(), scales: vec![0.0; rows] });
            assert!(none.product(&vec![1.0; 2 * inner], Then::Nothing).is_empty());
            assert!(none.expand().is_empty());
        }
        for n in [3, 90] {
            let x = random(n * 8, "x");
            let (bare, biased) = (
                Bytes::new(matrix.clone()).product(&x, Then::Nothing),
                Bytes::new(matrix.clone()).product(&x, Then::Bias(&bias)),
            );
            for (i, (bare, biased)) in bare.iter().zip(biased).enumerate() {
                assert_eq!(bare + bias[i % 5], biased);
            }
        }
    }

    #[test]
    fn a_code_of_minus_128_is_computed_with() {
        for inner in [5, 600] {
            let matrix = Int8 { rows: 3, inner, codes: vec![-128; 3 * inner], scales: vec![1.0; 3] };
            for (level, v) in here().flat_map(|level| [(level, 127.0), (level, -127.0)]) {
                let found = Bytes::at(&matrix, level).product(&vec![v; 6 * inner], Then::Nothing);
                assert_eq!(found, [-128.0 * v * inner as f32; 18], "{level:?}");
            }
        }
    }

    #[test]
    fn rows_are_got_back_and_moved_with_their_scales() {
        let matrix = matrix(37, 21);
        for level in here() {
            let packed = Bytes::at(&matrix, level);
            assert_eq!(packed.matrix(&(0..37).collect::<Vec<_>>()), matrix);
            assert_eq!(packed.expand(), matrix.expand());
            let moved = packed.with_rows(&[33, 0, 16]);
            assert_eq!(moved.row(0), packed.row(33));
            assert_eq!(moved.expand()[21..42], packed.expand()[..21]);
        }
    }

    #[test]
    fn one_thread_and_three_give_the_same_bits() {
        let w = random(700 * 200, "w");
        for n in [1, 7, 64, 500] {
            let x = random(n * 200, "x");
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| {
                    let (matrix, error) = Int8::round(&w, 200);
                    (Bytes::new(matrix.clone()).product(&x, Then::Nothing), matrix, error)
                })
            };
            assert_eq!(run(1), run(3));
        }
    }
}
