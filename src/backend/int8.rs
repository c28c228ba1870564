//! Matrices of bytes whose inputs are rounded to bytes as they come: dynamic int8, each row of the matrix and each row of the
//! inputs with one symmetric scale.

use rayon::prelude::*;

use super::gemm::Then;

/// A matrix [rows, inner]: a weight is its code times its row's scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8 {
    /// Rows.
    pub rows: usize,
    /// Length of a row.
    pub inner: usize,
    /// [rows, inner], from -127 to 127.
    pub codes: Vec<i8>,
    /// [rows]
    pub scales: Vec<f32>,
}

impl Int8 {
    /// Rounds rows of `inner` weights to the nearest codes; also the sum of the squared errors.
    pub fn round(values: &[f32], inner: usize) -> (Self, f64) {
        let rows = values.len() / inner.max(1);
        let mut made = Self { rows, inner, codes: vec![0; values.len()], scales: vec![0.0; rows] };
        let parts = values.par_chunks(inner).zip(made.codes.par_chunks_mut(inner)).zip(&mut made.scales);
        let errors: Vec<f64> = parts
            .map(|((values, codes), scale)| {
                *scale = round_row(values, codes);
                let off = values.iter().zip(&*codes).map(|(v, c)| f64::from(v - f32::from(*c) * *scale));
                off.map(|off| off * off).sum()
            })
            .collect();
        (made, errors.iter().sum())
    }

    /// All weights, row after row.
    pub fn expand(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.codes.len()];
        let parts = out.par_chunks_mut(self.inner).zip(self.codes.par_chunks(self.inner)).zip(&self.scales);
        parts.for_each(|((out, codes), scale)| out.iter_mut().zip(codes).for_each(|(v, c)| *v = f32::from(*c) * scale));
        out
    }
}

/// Rounds one row; gives its scale.
fn round_row(values: &[f32], codes: &mut [i8]) -> f32 {
    let most = values.iter().fold(0.0f32, |most, v| if v.is_nan() { f32::NAN } else { most.max(v.abs()) });
    let scale = most / 127.0;
    let factor = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    codes.iter_mut().zip(values).for_each(|(c, v)| *c = (v * factor).round_ties_even() as i8);
    scale
}

/// A matrix of bytes that is multiplied by.
#[derive(Clone, Debug, PartialEq)]
pub struct Bytes {
    matrix: Int8,
}

impl Bytes {
    /// Prepares a matrix.
    pub fn new(matrix: Int8) -> Self {
        Self { matrix }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.matrix.rows
    }

    /// Length of a row.
    pub fn inner(&self) -> usize {
        self.matrix.inner
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.matrix.codes.len() + 4 * self.matrix.scales.len()
    }

    /// One row's weights.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let codes = &self.matrix.codes[row * self.inner()..][..self.inner()];
        codes.iter().map(|c| f32::from(*c) * self.matrix.scales[row]).collect()
    }

    /// All weights, row after row.
    pub fn expand(&self) -> Vec<f32> {
        self.matrix.expand()
    }

    /// The rows in another order.
    #[must_use]
    pub fn with_rows(&self, order: &[usize]) -> Self {
        let inner = self.inner();
        let codes = order.iter().flat_map(|row| &self.matrix.codes[row * inner..][..inner]).copied().collect();
        let scales = order.iter().map(|row| self.matrix.scales[*row]).collect();
        Self::new(Int8 { rows: order.len(), inner, codes, scales })
    }

    /// `x [m, inner] x self^T -> [m, rows]`, x rounded row by row.
    pub fn product(&self, x: &[f32], then: Then<'_>) -> Vec<f32> {
        let (rows, inner) = (self.rows(), self.inner());
        let mut out = vec![0.0; x.len() / inner.max(1) * rows];
        out.par_chunks_mut(rows).zip(x.par_chunks(inner)).for_each(|(out, x)| {
            let mut own = vec![0; inner];
            let scale = round_row(x, &mut own);
            for (row, out) in out.iter_mut().enumerate() {
                let codes = &self.matrix.codes[row * inner..][..inner];
                let sum: i32 = codes.iter().zip(&own).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
                *out = sum as f32 * (scale * self.matrix.scales[row]);
            }
        });
        then.apply(&mut out);
        out
    }
}
