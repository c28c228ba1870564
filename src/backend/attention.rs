//! Attention in one pass, with its gradient: the scores of one head at a time, so that memory does not grow with heads
//! times length squared. Grouped queries (Ainslie et al., 2023) share a head of keys and values without a copy.
//!
//! Vaswani et al., 2017: `softmax(scale * q k^T) v`. Which keys a query sees is always a first part of them: those that
//! are no padding and, in a causal model, not later than itself. So nothing is masked, the rest is not computed.

use rayon::prelude::*;

use super::gemm::{Then, View, matmul};
use super::simd;
use super::texts::Lengths;

/// Which keys a query sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Keys of each row that are no padding.
    pub lengths: Lengths,
    /// A query sees no key later than itself; the last query is at the last key.
    pub causal: bool,
}

/// The shape of one attention.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Rows of the batch.
    pub rows: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values, which divides `heads`.
    pub kv_heads: usize,
    /// Queries.
    pub queries: usize,
    /// Keys.
    pub keys: usize,
    /// Width of a head.
    pub width: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Which keys are seen.
    pub scope: Scope,
}

impl Shape {
    /// Of queries [n, heads, queries, d], keys and values [n, kv heads, keys, d]; none where they do not fit.
    pub fn new(q: &[usize], k: &[usize], v: &[usize], scope: &Scope, scale: f32) -> Option<Self> {
        let (&[rows, heads, queries, width], &[_, kv_heads, keys, _]) = (q, k) else { return None };
        let fits = k == v && *k == [rows, kv_heads, keys, width];
        let fits = fits && heads.is_multiple_of(kv_heads) && scope.lengths.len() == rows;
        let shape = Self { rows, heads, kv_heads, queries, keys, width, scale, scope: scope.clone() };
        (fits && (keys >= queries || !scope.causal)).then_some(shape)
    }

    /// What is added to the scores where keys cannot be left out: [rows, queries, keys], 0 for a key that is seen and
    /// minus infinity for one that is not.
    pub fn mask(&self) -> Vec<f32> {
        let each = (0..self.rows).flat_map(|row| (0..self.queries).map(move |i| (row, i)));
        let score = |seen: usize| (0..self.keys).map(move |key| if key < seen { 0.0 } else { f32::NEG_INFINITY });
        each.flat_map(|(row, i)| score(self.seen(row, i))).collect()
    }

    /// How many keys query `i` of a row sees.
    fn seen(&self, row: usize, i: usize) -> usize {
        let length = self.scope.lengths[row].min(self.keys);
        if self.scope.causal { length.min(i + 1 + self.keys - self.queries) } else { length }
    }

    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn queries_of(&self, head: usize) -> std::ops::Range<usize> {
        let size = self.queries * self.width;
        head * size..(head + 1) * size
    }

    fn keys_of(&self, head: usize) -> std::ops::Range<usize> {
        let size = self.keys * self.width;
        head * size..(head + 1) * size
    }

    /// The weights of one head: [queries, keys], 0 for what is not seen.
    fn weights(&self, q: &[f32], k: &[f32], row: usize) -> Vec<f32> {
        let (n, m) = (self.queries, self.keys);
        let mut scores = matmul(View::new(q, n, self.width), View::new(k, m, self.width).transposed(), Then::Nothing);
        for (i, scores) in scores.chunks_exact_mut(m).enumerate() {
            let (seen, rest) = scores.split_at_mut(self.seen(row, i));
            rest.fill(0.0);
            let top = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            seen.iter_mut().for_each(|s| *s = (*s - top) * self.scale);
            simd::exp_all(seen);
            let sum: f32 = seen.iter().sum();
            seen.iter_mut().for_each(|s| *s /= sum);
        }
        scores
    }
}

/// q [rows, heads, queries, width], k and v [rows, kv heads, keys, width] -> as q. The scale is not negative.
pub fn attention(q: &[f32], k: &[f32], v: &[f32], shape: &Shape) -> Vec<f32> {
    let mut out = vec![0.0; q.len()];
    out.par_chunks_mut((shape.queries * shape.width).max(1)).enumerate().for_each(|(head, out)| {
        let keys = shape.keys_of(head / shape.group());
        let weights = shape.weights(&q[shape.queries_of(head)], &k[keys.clone()], head / shape.heads);
        let weights = View::new(&weights, shape.queries, shape.keys);
        out.copy_from_slice(&matmul(weights, View::new(&v[keys], shape.keys, shape.width), Then::Nothing));
    });
    out
}

/// Gradients of [`attention`] by q, k and v.
pub fn attention_grad(q: &[f32], k: &[f32], v: &[f32], grad: &[f32], shape: &Shape) -> [Vec<f32>; 3] {
    let (n, m, width) = (shape.queries, shape.keys, shape.width);
    let (mut by_q, mut by_k, mut by_v) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    let groups = by_q.par_chunks_mut((shape.group() * n * width).max(1));
    let groups = groups.zip(by_k.par_chunks_mut((m * width).max(1))).zip(by_v.par_chunks_mut((m * width).max(1)));
    groups.enumerate().for_each(|(group, ((by_q, by_k), by_v))| {
        let (k, v) = (&k[shape.keys_of(group)], &v[shape.keys_of(group)]);
        for (i, by_q) in by_q.chunks_exact_mut(n * width).enumerate() {
            let head = group * shape.group() + i;
            let (q, grad) = (&q[shape.queries_of(head)], &grad[shape.queries_of(head)]);
            let weights = shape.weights(q, k, head / shape.heads);
            let gradient = View::new(grad, n, width);
            let of_v = matmul(View::new(&weights, n, m).transposed(), gradient, Then::Nothing);
            by_v.iter_mut().zip(of_v).for_each(|(sum, g)| *sum += g);
            let mut scores = matmul(gradient, View::new(v, m, width).transposed(), Then::Nothing);
            for (g, w) in scores.chunks_exact_mut(m).zip(weights.chunks_exact(m)) {
                let dot: f32 = g.iter().zip(w).map(|(g, w)| g * w).sum();
                g.iter_mut().zip(w).for_each(|(g, w)| *g = w * (*g - dot) * shape.scale);
            }
            let scores = View::new(&scores, n, m);
            by_q.copy_from_slice(&matmul(scores, View::new(k, m, width), Then::Nothing));
            let of_k = matmul(scores.transposed(), View::new(q, n, width), Then::Nothing);
            by_k.iter_mut().zip(of_k).for_each(|(sum, g)| *sum += g);
        }
    });
    [by_q, by_k, by_v]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::softmax;
    use crate::rng::random;

    fn shape(causal: bool, queries: usize) -> Shape {
        let scope = Scope { lengths: vec![5, 3].into(), causal };
        Shape { rows: 2, heads: 4, kv_heads: 2, queries, keys: 5, width: 3, scale: 0.7, scope }
    }

    /// Score by score, masked with a large negative number.
    fn plain(q: &[f32], k: &[f32], v: &[f32], s: &Shape) -> Vec<f32> {
        let mut out = Vec::new();
        for head in 0..s.rows * s.heads {
            let (row, keys) = (head / s.heads, s.keys_of(head / (s.heads / s.kv_heads)));
            let (k, v) = (&k[keys.clone()], &v[keys]);
            for i in 0..s.queries {
                let q = &q[s.queries_of(head)][i * s.width..][..s.width];
                let score = |j: usize| -> f32 { q.iter().zip(&k[j * s.width..]).map(|(a, b)| a * b).sum() };
                let late = |j: usize| s.scope.causal && j > i + s.keys - s.queries;
                let masked = |j: usize| if j >= s.scope.lengths[row] || late(j) { -1e9 } else { score(j) * s.scale };
                let weights = softmax(&(0..s.keys).map(masked).collect::<Vec<f32>>(), s.keys);
                out.extend((0..s.width).map(|c| (0..s.keys).map(|j| weights[j] * v[j * s.width + c]).sum::<f32>()));
            }
        }
        out
    }

    #[test]
    fn agrees_with_masked_scores() {
        for (causal, queries) in [(false, 5), (true, 5), (true, 1), (true, 2)] {
            let s = shape(causal, queries);
            let q = random(2 * 4 * queries * 3, "q");
            let (k, v) = (random(2 * 2 * 5 * 3, "k"), random(2 * 2 * 5 * 3, "v"));
            for (found, plain) in attention(&q, &k, &v, &s).iter().zip(plain(&q, &k, &v, &s)) {
                assert!((found - plain).abs() < 1e-5, "{causal} {queries}: {found} {plain}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        let s = shape(true, 5);
        let all = [random(120, "q"), random(60, "k"), random(60, "v")];
        let g = random(120, "g");
        let grads = attention_grad(&all[0], &all[1], &all[2], &g, &s);
        for (which, grad) in grads.iter().enumerate() {
            for i in (0..grad.len()).step_by(7) {
                let at = |delta: f32| -> f64 {
                    let mut moved = all.clone();
                    moved[which][i] += delta;
                    let out = attention(&moved[0], &moved[1], &moved[2], &s);
                    out.iter().zip(&g).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!((numeric - f64::from(grad[i])).abs() < 1e-2 * (1.0 + numeric.abs()), "{which} {i}");
            }
        }
    }
}
