//! Matrix products with what follows them: bias, or a folded batch norm with its clamp, in one pass.
//!
//! The right matrix is packed into panels of 16 columns; tiles of 12 x 32 sums stay in registers over the
//! whole inner length (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, less
//! their blocking of the inner length: ours is at most some thousands, so a panel stays in the second cache).
//! One sum is one chain in one order, so the bits depend on nothing but the operands.

use rayon::prelude::*;

use super::simd::{self, PANEL, ROWS, Tile};

/// A matrix as it lies in memory: element (i, j) is at `i * row_stride + j * column_stride`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The values.
    pub values: &'a [f32],
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Between rows.
    pub row_stride: usize,
    /// Between columns.
    pub column_stride: usize,
}

impl<'a> View<'a> {
    /// Rows one after another.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        debug_assert_eq!(values.len(), rows * columns);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Rows and columns exchanged; nothing is copied.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// What is done to the product before it leaves the cache.
#[derive(Clone, Copy, Debug)]
pub enum Then<'a> {
    /// Nothing.
    Nothing,
    /// A row is added to each row.
    Bias(&'a [f32]),
    /// `clamp(x * scale + shift, low, high)`, scale and shift along the columns.
    ScaleShift(&'a [f32], &'a [f32], f32, f32),
}

impl Then<'_> {
    /// Does it to whole rows.
    pub(super) fn apply(self, rows: &mut [f32]) {
        match self {
            Then::Nothing => {}
            Then::Bias(bias) => simd::add_row(rows, bias),
            Then::ScaleShift(scale, shift, low, high) => simd::scale_shift(rows, scale, shift, low, high),
        }
    }
}

/// `a [m, k] x b [k, n] -> [m, n]`, row-major.
pub fn matmul(a: View<'_>, b: View<'_>, then: Then<'_>) -> Vec<f32> {
    let (m, inner, n) = (a.rows, a.columns, b.columns);
    assert_eq!(inner, b.rows, "inner lengths of a product");
    if inner > 0 && m <= DOT_ROWS && a.column_stride == 1 && b.row_stride == 1 {
        return dots(a, b, then);
    }
    by_panels(a, &pack(b), n, then)
}

/// `a [m, k] x b [k, n]`, b in [`panels`].
pub(super) fn by_panels(a: View<'_>, panels: &[f32], n: usize, then: Then<'_>) -> Vec<f32> {
    let (m, inner) = (a.rows, a.columns);
    let mut out = vec![0.0; m * n];
    if m == 0 || n == 0 {
        return out;
    }
    if inner == 0 {
        then.apply(&mut out);
        return out;
    }
    let pair = 2 * PANEL;
    let tile = |row: usize, column: usize| Tile {
        a: &a.values[row * a.row_stride..],
        row_stride: a.row_stride,
        step: a.column_stride,
        inner,
        panels: &panels[column * inner..],
    };
    if m <= 2 * ROWS && n > pair {
        // Few rows: the threads share the columns.
        let strips: Vec<Vec<f32>> = (0..n.div_ceil(pair))
            .into_par_iter()
            .with_min_len(4)
            .map(|p| {
                let columns = pair.min(n - p * pair);
                let mut strip = vec![0.0; m * columns];
                for row in (0..m).step_by(ROWS) {
                    let rows = ROWS.min(m - row);
                    simd::multiply(tile(row, p * pair), rows, &mut strip[row * columns..], columns, columns);
                }
                strip
            })
            .collect();
        for (p, strip) in strips.iter().enumerate() {
            let columns = pair.min(n - p * pair);
            for (row, part) in strip.chunks_exact(columns).enumerate() {
                out[row * n + p * pair..][..columns].copy_from_slice(part);
            }
        }
        then.apply(&mut out);
        return out;
    }
    // Eight tiles share a panel while it is in the cache.
    let block = if m >= 32 * ROWS { 8 * ROWS } else { ROWS };
    out.par_chunks_mut(block * n).enumerate().for_each(|(i, out)| {
        let rows = out.len() / n;
        for column in (0..n).step_by(pair) {
            for row in (0..rows).step_by(ROWS) {
                let columns = pair.min(n - column);
                let count = ROWS.min(rows - row);
                simd::multiply(tile(i * block + row, column), count, &mut out[row * n + column..], n, columns);
            }
        }
        then.apply(out);
    });
    out
}

/// Up to so many rows are multiplied by a matrix as it lies: packing it would cost more than the product.
pub(super) const DOT_ROWS: usize = 4;

/// Columns of a panel.
pub(super) const WIDTH: usize = PANEL;

/// The product as sums along the rows of both.
fn dots(a: View<'_>, b: View<'_>, then: Then<'_>) -> Vec<f32> {
    let (m, inner, n) = (a.rows, a.columns, b.columns);
    let row = |i: usize| &a.values[i * a.row_stride..][..inner];
    // [n, m], so that a thread writes what lies together.
    let mut turned = vec![0.0; n * m];
    turned.par_chunks_mut(m).with_min_len(16).enumerate().for_each(|(j, sums)| {
        let column = &b.values[j * b.column_stride..][..inner];
        sums.iter_mut().enumerate().for_each(|(i, sum)| simd::dot(sum, row(i), column));
    });
    let mut out: Vec<f32> = (0..m * n).map(|at| turned[at % n * m + at / n]).collect();
    then.apply(&mut out);
    out
}

/// Panels [inner, 16] one after another, zero beyond the last column.
fn pack(b: View<'_>) -> Vec<f32> {
    panels(b.columns, b.rows, &|first, panel| {
        let width = PANEL.min(b.columns - first);
        if b.column_stride == 1 {
            for (i, row) in panel.chunks_exact_mut(PANEL).enumerate() {
                row[..width].copy_from_slice(&b.values[i * b.row_stride + first..][..width]);
            }
        } else {
            // Rows of the panel in blocks, so that each cache line of the source is read once.
            for (block, rows) in panel.chunks_mut(PANEL * PANEL).enumerate() {
                for j in 0..width {
                    let from = (first + j) * b.column_stride + block * PANEL * b.row_stride;
                    for (i, row) in rows.chunks_exact_mut(PANEL).enumerate() {
                        row[j] = b.values[from + i * b.row_stride];
                    }
                }
            }
        }
    })
}

/// Panels [inner, 16] for so many columns, each filled by what gets its first column and zeros.
pub(super) fn panels(columns: usize, inner: usize, fill: &(dyn Fn(usize, &mut [f32]) + Sync)) -> Vec<f32> {
    let mut panels = vec![0.0; columns.div_ceil(PANEL) * PANEL * inner];
    if inner > 0 {
        panels.par_chunks_mut(PANEL * inner).enumerate().for_each(|(p, panel)| fill(p * PANEL, panel));
    }
    panels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    #[test]
    fn products_agree_with_plain_sums_in_every_layout() {
        for (m, k, n) in [(1, 1, 1), (3, 100, 70), (5, 7, 3), (13, 33, 50), (24, 8, 100), (400, 17, 16), (25, 9, 31)] {
            let (a, b) = (random(m * k, "a"), random(k * n, "b"));
            let mut plain = vec![0.0f64; m * n];
            for i in 0..m * n {
                plain[i] = (0..k).map(|p| f64::from(a[i / n * k + p]) * f64::from(b[p * n + i % n])).sum();
            }
            let turn = |v: &[f32], rows: usize, columns: usize| -> Vec<f32> {
                (0..rows * columns).map(|i| v[i % rows * columns + i / rows]).collect()
            };
            let (at, bt) = (turn(&a, m, k), turn(&b, k, n));
            let straight = matmul(View::new(&a, m, k), View::new(&b, k, n), Then::Nothing);
            let turned = matmul(View::new(&at, k, m).transposed(), View::new(&bt, n, k).transposed(), Then::Nothing);
            if m > DOT_ROWS {
                assert_eq!(straight, turned, "{m} {k} {n}");
            }
            let few = matmul(View::new(&a, m, k), View::new(&bt, n, k).transposed(), Then::Nothing);
            for (few, plain) in few.iter().zip(&plain) {
                assert!((f64::from(*few) - plain).abs() < 1e-4, "{m} {k} {n}: {few} {plain}");
            }
            for (found, plain) in straight.iter().zip(&plain) {
                assert!((f64::from(*found) - plain).abs() < 1e-4, "{m} {k} {n}: {found} {plain}");
            }
        }
    }

    #[test]
    fn what_follows_is_applied_to_each_row() {
        let (a, b) = (random(30 * 4, "a"), random(4 * 5, "b"));
        let plain = matmul(View::new(&a, 30, 4), View::new(&b, 4, 5), Then::Nothing);
        let bias = [1.0, 2.0, 3.0, 4.0, 5.0];
        let biased = matmul(View::new(&a, 30, 4), View::new(&b, 4, 5), Then::Bias(&bias));
        let normed = matmul(View::new(&a, 30, 4), View::new(&b, 4, 5), Then::ScaleShift(&bias, &bias, 0.0, 6.0));
        for i in 0..150 {
            assert_eq!(biased[i], plain[i] + bias[i % 5]);
            assert_eq!(normed[i], (plain[i] * bias[i % 5] + bias[i % 5]).clamp(0.0, 6.0));
        }
    }

    #[test]
    fn one_thread_and_three_give_the_same_bits() {
        let (a, b) = (random(500 * 40, "a"), random(40 * 70, "b"));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| matmul(View::new(&a, 500, 40), View::new(&b, 40, 70), Then::Nothing))
        };
        assert_eq!(run(1), run(3));
    }
}
