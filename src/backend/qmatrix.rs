//! Matrices that stay quantized: group-wise affine codes of 4 or 8 bits, multiplied as they lie; and bytes whose inputs are
//! rounded too ([`super::int8`]).
//!
//! In groups, a weight is `code * scale + bias`, with a scale and a bias for each group of a row. That is MLX's form, and GGUF's Q4_0,
//! Q4_1, Q5_0, Q5_1, Q8_0 and Q4_K are of it to the last bit: their scales have so few digits that the product is exact. So a
//! matrix is a quarter or less of its floats, and its product by many rows is bit for bit that of the floats: what is packed
//! for the product is expanded on the way. By a few rows (generation) the codes themselves are read.

use rayon::prelude::*;

use super::gemm::{self, Then, View};
use super::int8::Bytes;
use super::simd;

/// Codes that lie together: in 4 bits, 16 bytes of which the low halves come first.
pub const BLOCK: usize = 32;

/// A matrix [rows, inner] that stays quantized.
#[derive(Clone, Debug, PartialEq)]
pub enum QMatrix {
    /// By codes in groups.
    Groups(Groups),
    /// By bytes.
    Bytes(Bytes),
}

impl From<Groups> for QMatrix {
    fn from(matrix: Groups) -> Self {
        Self::Groups(matrix)
    }
}

impl From<Bytes> for QMatrix {
    fn from(matrix: Bytes) -> Self {
        Self::Bytes(matrix)
    }
}

impl QMatrix {
    /// Rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Groups(matrix) => matrix.rows,
            Self::Bytes(matrix) => matrix.rows(),
        }
    }

    /// Length of a row.
    pub fn inner(&self) -> usize {
        match self {
            Self::Groups(matrix) => matrix.inner,
            Self::Bytes(matrix) => matrix.inner(),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Groups(matrix) => matrix.bytes(),
            Self::Bytes(matrix) => matrix.bytes(),
        }
    }

    /// The rows in another order.
    #[must_use]
    pub fn with_rows(&self, order: &[usize]) -> Self {
        match self {
            Self::Groups(matrix) => Self::Groups(matrix.with_rows(order)),
            Self::Bytes(matrix) => Self::Bytes(matrix.with_rows(order)),
        }
    }

    /// One row's weights.
    pub fn row(&self, row: usize) -> Vec<f32> {
        match self {
            Self::Groups(matrix) => matrix.row(row),
            Self::Bytes(matrix) => matrix.row(row),
        }
    }

    /// All weights, row after row.
    pub fn expand(&self) -> Vec<f32> {
        match self {
            Self::Groups(matrix) => matrix.expand(),
            Self::Bytes(matrix) => matrix.expand(),
        }
    }

    /// `x [m, inner] x self^T -> [m, rows]`.
    pub fn product(&self, x: &[f32], then: Then<'_>) -> Vec<f32> {
        match self {
            Self::Groups(matrix) => matrix.product(x, then),
            Self::Bytes(matrix) => matrix.product(x, then),
        }
    }

    /// `x [m, rows] x self -> [m, inner]`: the gradient of [`Self::product`] by its rows. Of bytes, as if inputs were not
    /// rounded: Bengio, Leonard and Courville's straight-through estimator, 2013.
    pub fn product_back(&self, x: &[f32]) -> Vec<f32> {
        match self {
            Self::Groups(matrix) => matrix.product_back(x),
            Self::Bytes(matrix) => {
                let weights = matrix.expand();
                let m = x.len() / matrix.rows();
                let by = View::new(&weights, matrix.rows(), matrix.inner());
                gemm::matmul(View::new(x, m, matrix.rows()), by, Then::Nothing)
            }
        }
    }
}

/// A matrix [rows, inner] in affine codes, each group of a row with a scale and a bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Groups {
    /// Rows.
    pub rows: usize,
    /// Length of a row; a multiple of [`BLOCK`].
    pub inner: usize,
    /// Weights that share a scale; a multiple of 16.
    pub group: usize,
    /// 4 or 8.
    pub bits: usize,
    /// In 8 bits a byte each; in 4, byte i of a block's 16 has code i in its low half and code 16 + i in its high one.
    pub codes: Vec<u8>,
    /// [rows, inner / group]
    pub scales: Vec<f32>,
    /// [rows, inner / group]
    pub biases: Vec<f32>,
}

impl Groups {
    /// Bytes of one row's codes.
    fn row_bytes(&self) -> usize {
        self.inner * self.bits / 8
    }

    /// Groups of one row.
    fn groups(&self) -> usize {
        self.inner / self.group
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.codes.len() + 4 * (self.scales.len() + self.biases.len())
    }

    /// Codes in their order, each a byte: row after row.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn new(
        rows: usize,
        inner: usize,
        group: usize,
        bits: usize,
        codes: &[u8],
        scales: Vec<f32>,
        biases: Vec<f32>,
    ) -> Self {
        assert!(
            codes.len() == rows * inner && inner.is_multiple_of(BLOCK) && inner.is_multiple_of(group),
            "a matrix of codes"
        );
        assert!(
            group.is_multiple_of(16) && scales.len() == rows * inner / group && biases.len() == scales.len(),
            "its scales"
        );
        let codes = match bits {
            4 => codes
                .chunks_exact(BLOCK)
                .flat_map(|block| (0..BLOCK / 2).map(|i| block[i] | block[BLOCK / 2 + i] << 4))
                .collect(),
            _ => codes.to_vec(),
        };
        Self { rows, inner, group, bits: if bits == 4 { 4 } else { 8 }, codes, scales, biases }
    }

    /// Codes in their order, each a byte: what [`Self::new`] was given.
    pub fn unpacked(&self) -> Vec<u8> {
        match self.bits {
            4 => {
                let blocks = self.codes.chunks_exact(BLOCK / 2);
                let halves =
                    |block: &[u8]| [block.iter().map(|b| b & 15).collect(), block.iter().map(|b| b >> 4).collect()];
                blocks.flat_map(halves).flat_map(|half: Vec<u8>| half).collect()
            }
            _ => self.codes.clone(),
        }
    }

    /// The rows in another order.
    #[must_use]
    pub fn with_rows(&self, order: &[usize]) -> Self {
        fn of<V: Copy>(values: &[V], size: usize, order: &[usize]) -> Vec<V> {
            order.iter().flat_map(|row| &values[row * size..][..size]).copied().collect()
        }
        Self {
            rows: order.len(),
            codes: of(&self.codes, self.row_bytes(), order),
            scales: of(&self.scales, self.groups(), order),
            biases: of(&self.biases, self.groups(), order),
            ..*self
        }
    }

    /// Weights `from..from + out.len()` of a row; both bounds are multiples of 16.
    fn expand_part(&self, row: usize, from: usize, out: &mut [f32]) {
        let codes = &self.codes[row * self.row_bytes()..][..self.row_bytes()];
        for (i, out) in out.chunks_exact_mut(16).enumerate() {
            let at = from + i * 16;
            let group = row * self.groups() + at / self.group;
            let (codes, shift, mask) = match self.bits {
                4 => (&codes[at / BLOCK * 16..][..16], at % BLOCK / 16 * 4, 15),
                _ => (&codes[at..][..16], 0, 255),
            };
            simd::expand(out, codes, shift as u32, mask, self.scales[group], self.biases[group]);
        }
    }

    /// One row's weights.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.inner];
        self.expand_part(row, 0, &mut out);
        out
    }

    /// All weights, row after row.
    pub fn expand(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.inner];
        out.par_chunks_exact_mut(self.inner).enumerate().for_each(|(row, out)| self.expand_part(row, 0, out));
        out
    }

    /// `x [m, inner] x self^T -> [m, rows]`.
    pub fn product(&self, x: &[f32], then: Then<'_>) -> Vec<f32> {
        let m = x.len() / self.inner;
        if m <= gemm::DOT_ROWS {
            return self.dots(x, m, then);
        }
        let panels = gemm::panels(self.rows, self.inner, &|first, panel| {
            let mut row = vec![0.0; self.inner];
            for j in 0..gemm::WIDTH.min(self.rows - first) {
                self.expand_part(first + j, 0, &mut row);
                panel.chunks_exact_mut(gemm::WIDTH).zip(&row).for_each(|(panel, v)| panel[j] = *v);
            }
        });
        gemm::by_panels(View::new(x, m, self.inner), &panels, self.rows, then)
    }

    /// `x [m, rows] x self -> [m, inner]`: the gradient of [`Self::product`] by its rows.
    pub fn product_back(&self, x: &[f32]) -> Vec<f32> {
        let m = x.len() / self.rows;
        let panels = gemm::panels(self.inner, self.rows, &|first, panel| {
            // A part of each row; past the last weight the panel stays zero.
            panel.chunks_exact_mut(gemm::WIDTH).enumerate().for_each(|(row, out)| self.expand_part(row, first, out));
        });
        gemm::by_panels(View::new(x, m, self.rows), &panels, self.inner, Then::Nothing)
    }

    /// Few rows: sums along the codes as they lie, each group's scaled once.
    fn dots(&self, x: &[f32], m: usize, then: Then<'_>) -> Vec<f32> {
        let (groups, bytes) = (self.groups(), self.row_bytes());
        // What the biases are multiplied by.
        let sums: Vec<f32> = x.chunks_exact(self.group).map(|group| group.iter().sum()).collect();
        // [rows, m], so that a thread writes what lies together.
        let mut turned = vec![0.0; self.rows * m];
        turned.par_chunks_mut(m.max(1)).with_min_len(64).enumerate().for_each(|(row, out)| {
            let codes = &self.codes[row * bytes..][..bytes];
            let (scales, biases) = (&self.scales[row * groups..][..groups], &self.biases[row * groups..][..groups]);
            for (i, out) in out.iter_mut().enumerate() {
                let x = &x[i * self.inner..][..self.inner];
                match self.bits {
                    4 if self.group.is_multiple_of(BLOCK) => simd::dot4(out, x, codes, scales, self.group),
                    8 => simd::dot8(out, x, codes, scales, self.group),
                    _ => {
                        *out = self.row(row).iter().zip(x).map(|(w, x)| w * x).sum();
                        continue;
                    }
                }
                *out += biases.iter().zip(&sums[i * groups..]).map(|(bias, sum)| bias * sum).sum::<f32>();
            }
        });
        let mut out: Vec<f32> = (0..m * self.rows).map(|at| turned[at % self.rows * m + at / self.rows]).collect();
        then.apply(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, random};

    fn drawn(rows: usize, inner: usize, group: usize, bits: usize) -> Groups {
        let mut rng = Rng::new(1, "codes");
        let codes: Vec<u8> = (0..rows * inner).map(|_| rng.below(1 << bits) as u8).collect();
        let scales = random(rows * inner / group, "scales");
        let matrix = Groups::new(rows, inner, group, bits, &codes, scales, random(rows * inner / group, "biases"));
        assert_eq!(matrix.unpacked(), codes);
        let at = |i: usize| i / inner * (inner / group) + i % inner / group;
        let plain = |i: usize| f32::from(codes[i]) * matrix.scales[at(i)] + matrix.biases[at(i)];
        assert_eq!(
            matrix.expand(),
            (0..rows * inner).map(plain).collect::<Vec<_>>(),
            "{bits} bits in groups of {group}"
        );
        matrix
    }

    #[test]
    fn products_are_those_of_the_floats() {
        for (group, bits) in [(32, 4), (64, 4), (16, 8), (32, 8), (128, 4), (16, 4)] {
            let matrix = drawn(37, 128, group, bits);
            let floats = matrix.expand();
            for m in [1, 3, 7, 40] {
                let x = random(m * 128, "x");
                let expected =
                    gemm::matmul(View::new(&x, m, 128), View::new(&floats, 37, 128).transposed(), Then::Nothing);
                let found = matrix.product(&x, Then::Nothing);
                let worst =
                    expected.iter().zip(&found).map(|(a, b)| (a - b).abs() / (1.0 + a.abs())).fold(0.0, f32::max);
                assert!(
                    if m > gemm::DOT_ROWS { worst == 0.0 } else { worst < 2e-5 },
                    "{bits} bits, {group}, {m}: {worst}"
                );
            }
            let grad = random(9 * 37, "grad");
            let expected = gemm::matmul(View::new(&grad, 9, 37), View::new(&floats, 37, 128), Then::Nothing);
            assert_eq!(matrix.product_back(&grad), expected, "{bits} bits in groups of {group}");
        }
    }

    #[test]
    fn rows_are_moved_with_their_scales() {
        let matrix = drawn(5, 64, 32, 4);
        let moved = matrix.with_rows(&[3, 0, 4]);
        assert_eq!(moved.expand()[64..128], matrix.expand()[..64]);
        assert_eq!(moved.row(0), matrix.row(3));
    }

    #[test]
    fn one_thread_and_three_give_the_same_bits() {
        let matrix = drawn(300, 64, 32, 4);
        let run = |threads, m: usize| {
            let x = random(m * 64, "x");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| matrix.product(&x, Then::Nothing))
        };
        assert_eq!(run(1, 1), run(3, 1));
        assert_eq!(run(1, 50), run(3, 50));
    }
}
