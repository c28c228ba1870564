//! The inputs of a matrix, summed up: `X^T X` over all rows seen, and the linear algebra on it.

use rayon::prelude::*;

use crate::gemm::{Then, View, matmul};

/// `X^T X` of the inputs of a matrix, [inner, inner], and how many there were.
#[derive(Clone, Debug)]
pub struct Gram {
    /// Length of an input.
    pub inner: usize,
    /// The sums, row-major, in double precision: the inverse is sensitive.
    pub sums: Vec<f64>,
    /// The largest magnitude of each.
    pub largest: Vec<f32>,
    /// Inputs seen.
    pub count: usize,
}

impl Gram {
    /// Of no inputs.
    pub fn new(inner: usize) -> Self {
        Self { inner, sums: vec![0.0; inner * inner], largest: vec![0.0; inner], count: 0 }
    }

    /// Adds inputs, [n, inner]. The order of calls decides the last bits, threads do not.
    pub fn add(&mut self, x: &[f32]) {
        let n = x.len() / self.inner;
        let view = View::new(x, n, self.inner);
        let product = matmul(view.transposed(), view, Then::Nothing);
        self.sums.par_iter_mut().zip(&product).for_each(|(sum, v)| *sum += f64::from(*v));
        for row in x.chunks_exact(self.inner) {
            self.largest.iter_mut().zip(row).for_each(|(most, v)| *most = most.max(v.abs()));
        }
        self.count += n;
    }

    /// As if each input had been divided by its scale.
    pub fn divide(&mut self, scales: &[f32]) {
        self.sums.par_chunks_mut(self.inner).zip(scales).for_each(|(row, own)| {
            row.iter_mut().zip(scales).for_each(|(sum, other)| *sum /= f64::from(*own) * f64::from(*other));
        });
        self.largest.iter_mut().zip(scales).for_each(|(most, scale)| *most /= scale);
    }

    /// The mean square of each input: the diagonal over the count.
    pub fn mean_squares(&self) -> Vec<f64> {
        let count = self.count.max(1) as f64;
        (0..self.inner).map(|i| self.sums[i * self.inner + i] / count).collect()
    }

    /// The mean over the inputs of the squared error of a product, where the matrix is off by `off` [out, inner].
    pub fn error(&self, off: &[f32]) -> f64 {
        self.judge().error(off)
    }

    /// For many errors.
    pub fn judge(&self) -> Judge {
        let count = self.count.max(1) as f64;
        Judge { inner: self.inner, means: self.sums.iter().map(|v| (v / count) as f32).collect() }
    }
}

/// What products are off by where a matrix is: [`Gram::error`].
#[derive(Debug)]
pub struct Judge {
    inner: usize,
    /// The sums over the count, [inner, inner].
    means: Vec<f32>,
}

impl Judge {
    /// The mean over the inputs of the squared error of a product, where the matrix is off by `off` [out, inner].
    pub fn error(&self, off: &[f32]) -> f64 {
        let n = off.len() / self.inner;
        let moved =
            matmul(View::new(off, n, self.inner), View::new(&self.means, self.inner, self.inner), Then::Nothing);
        let rows = moved.par_chunks(self.inner).zip(off.par_chunks(self.inner));
        let errors: Vec<f64> =
            rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()).collect();
        errors.iter().sum()
    }

    /// The means among the inputs of each group, [group, group] after one another.
    pub fn blocks(&self, group: usize) -> Vec<f32> {
        let rows = (0..self.inner).flat_map(|i| {
            let begin = i / group * group;
            &self.means[i * self.inner + begin..][..group]
        });
        rows.copied().collect()
    }
}

/// The upper triangular U with `U^T U = (H + damping * mean diagonal)^-1`, [n, n]; none where that is not positive definite.
///
/// H turned end for end is factored once, `L L^T`; the inverse of L, turned back, is U.
pub fn upper_of_inverse(h: &[f64], n: usize, damping: f64) -> Option<Vec<f64>> {
    let mean = (0..n).map(|i| h[i * n + i]).sum::<f64>() / n.max(1) as f64;
    let turned = |i: usize, j: usize| h[(n - 1 - i) * n + (n - 1 - j)];
    let mut a: Vec<f64> = (0..n * n).map(|at| turned(at / n, at % n)).collect();
    for i in 0..n {
        a[i * n + i] += damping * mean;
    }
    cholesky(&mut a, n)?;
    let inverse = inverse_of_lower(&a, n);
    Some((0..n * n).map(|at| inverse[(n - 1 - at / n) * n + (n - 1 - at % n)]).collect())
}

/// Columns factored together.
const BLOCK: usize = 64;

/// In place the lower factor of a symmetric matrix; what is above the diagonal becomes zero. By blocks of columns, so that
/// the bulk is sums along rows that all threads share.
fn cholesky(a: &mut [f64], n: usize) -> Option<()> {
    for begin in (0..n).step_by(BLOCK) {
        let end = (begin + BLOCK).min(n);
        // The block's own rows, one after the other.
        for i in begin..end {
            for j in begin..=i {
                let (row, other) = (i * n, j * n);
                let left = a[row + j] - dot(&a[row..row + j], &a[other..other + j]);
                if i == j {
                    if left.is_nan() || left <= 0.0 {
                        return None;
                    }
                    a[row + i] = left.sqrt();
                } else {
                    a[row + j] = left / a[other + j];
                }
            }
        }
        // The rows below: each for itself.
        let (above, below) = a.split_at_mut(end * n);
        below.par_chunks_mut(n).for_each(|row| {
            for j in begin..end {
                let other = &above[j * n..][..j + 1];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
        });
    }
    for i in 0..n {
        a[i * n + i + 1..(i + 1) * n].fill(0.0);
    }
    Some(())
}

/// The inverse of a lower triangular matrix, lower triangular too.
fn inverse_of_lower(l: &[f64], n: usize) -> Vec<f64> {
    // Column j of the inverse is the solution for a one at j; kept as a row, so that sums run along rows.
    let mut columns = vec![0.0; n * n];
    columns.par_chunks_mut(n).enumerate().for_each(|(j, x)| {
        x[j] = 1.0 / l[j * n + j];
        for i in j + 1..n {
            x[i] = -dot(&l[i * n + j..i * n + i], &x[j..i]) / l[i * n + i];
        }
    });
    (0..n * n).map(|at| columns[at % n * n + at / n]).collect()
}

/// In eight chains that are added in one order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut chains = [0.0; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..8 {
            chains[i] += a[i] * b[i];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    chains.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    #[test]
    fn the_factor_is_of_the_inverse() {
        for n in [1, 5, 64, 150] {
            let mut gram = Gram::new(n);
            gram.add(&random(3 * n * n, "x"));
            let u = upper_of_inverse(&gram.sums, n, 0.0).expect("positive definite");
            // (U^T U) H is one.
            let product = |i: usize, j: usize| (0..n).map(|k| u[k * n + i] * u[k * n + j]).sum::<f64>();
            let inverse: Vec<f64> = (0..n * n).map(|at| product(at / n, at % n)).collect();
            for (at, u) in u.iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let one: f64 = (0..n).map(|k| inverse[i * n + k] * gram.sums[k * n + j]).sum();
                assert!((one - f64::from(u8::from(i == j))).abs() < 1e-8, "{n}: {i} {j} {one}");
                assert!(j >= i || *u == 0.0);
            }
        }
    }

    #[test]
    fn an_error_is_the_mean_square_of_the_products() {
        let (x, off) = (random(40 * 6, "x"), random(3 * 6, "off"));
        let mut gram = Gram::new(6);
        gram.add(&x[..60]);
        gram.add(&x[60..]);
        let mut squares = 0.0;
        for x in x.chunks(6) {
            for row in off.chunks(6) {
                squares += x.iter().zip(row).map(|(a, b)| f64::from(a * b)).sum::<f64>().powi(2);
            }
        }
        assert!((gram.error(&off) / (squares / 40.0) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn what_has_no_inverse_is_none() {
        assert!(upper_of_inverse(&[1.0, 1.0, 1.0, 1.0], 2, 0.0).is_none());
        assert!(upper_of_inverse(&[1.0, 1.0, 1.0, 1.0], 2, 0.01).is_some());
        assert!(upper_of_inverse(&[f64::NAN; 4], 2, 0.01).is_none());
    }
}
