//! Cross-entropy over a large vocabulary, with its gradients by the last matrix and by what that is applied to. The logits of a few
//! hundred tokens are held at once, never those of a whole batch: with 49,152 entries each those would be most of a
//! training step's memory.
//!
//! Logits lie as [vocabulary, tokens], so that the large matrix is read as it lies and only the tokens are packed.

use rayon::prelude::*;

use super::gemm::{Then, View, matmul};
use super::simd;

/// Tokens whose logits are held at once.
const TOKENS: usize = 256;

/// Entries of the vocabulary that are worked on at once: their part of the logits stays in the second cache.
const ENTRIES: usize = 2048;

/// What cross-entropy gives.
#[derive(Debug)]
pub struct Losses {
    /// The negative log-probability of each token's target, in nats: `[tokens]`.
    pub losses: Vec<f32>,
    /// The gradient of each loss by its token's vector: `[tokens, width]`; empty where it was not asked for.
    pub grads: Vec<f32>,
}

/// Cross-entropy of `hidden [tokens, width] x head^T [vocabulary, width]` with the targets, token by token.
///
/// # Panics
/// If a target is not in the vocabulary.
pub fn cross_entropy(hidden: &[f32], head: &[f32], width: usize, targets: &[u32], with_grads: bool) -> Losses {
    let mut all = Losses { losses: Vec::with_capacity(targets.len()), grads: Vec::new() };
    for (hidden, targets) in hidden.chunks(TOKENS * width).zip(targets.chunks(TOKENS)) {
        few(hidden, head, width, targets, with_grads, &mut all);
    }
    all
}

/// The gradients of `sum(by_loss * losses)` by the tokens' vectors `[tokens, width]` and by the matrix `[vocabulary, width]`,
/// where that is trained. The logits are computed again: kept, they would be the batch's.
///
/// # Panics
/// If a target is not in the vocabulary.
pub fn cross_entropy_grads(
    hidden: &[f32],
    head: &[f32],
    width: usize,
    targets: &[u32],
    by_loss: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (mut by_hidden, mut by_head) = (Vec::with_capacity(hidden.len()), vec![0.0; head.len()]);
    let parts = hidden.chunks(TOKENS * width).zip(targets.chunks(TOKENS)).zip(by_loss.chunks(TOKENS));
    for ((hidden, targets), by_loss) in parts {
        let mut all = Softened::new(hidden, head, width, targets);
        all.differ(targets, by_loss);
        by_hidden.extend(all.by_hidden(head, width));
        let n = targets.len();
        for (sum, part) in by_head.chunks_mut(ENTRIES * width).zip(all.logits.chunks(ENTRIES * n)) {
            let part = matmul(View::new(part, part.len() / n, n), View::new(hidden, n, width), Then::Nothing);
            sum.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
        }
    }
    (by_hidden, by_head)
}

fn few(hidden: &[f32], head: &[f32], width: usize, targets: &[u32], with_grads: bool, all: &mut Losses) {
    let mut softened = Softened::new(hidden, head, width, targets);
    all.losses.extend(softened.right.iter().zip(&softened.sums).map(|(right, sum)| sum.ln() - right));
    if with_grads {
        softened.differ(targets, &vec![1.0; targets.len()]);
        all.grads.extend(softened.by_hidden(head, width));
    }
}

/// The logits of some tokens, less the largest of each, as powers of e.
struct Softened {
    /// `[vocabulary, tokens]`
    logits: Vec<f32>,
    /// Each token's sum.
    sums: Vec<f32>,
    /// The logit of each token's target, less the largest.
    right: Vec<f32>,
}

impl Softened {
    fn new(hidden: &[f32], head: &[f32], width: usize, targets: &[u32]) -> Self {
        let (n, entries) = (targets.len(), head.len() / width);
        let hidden = View::new(hidden, n, width).transposed();
        let mut logits = matmul(View::new(head, entries, width), hidden, Then::Nothing);
        let tops: Vec<f32> = logits
            .par_chunks(ENTRIES * n)
            .map(|part| columns(part, n, f32::NEG_INFINITY, f32::max))
            .reduce(|| vec![f32::NEG_INFINITY; n], |a, b| a.iter().zip(b).map(|(a, b)| a.max(b)).collect());
        let right = (0..n)
            .map(|token| {
                assert!((targets[token] as usize) < entries, "a token of the vocabulary");
                logits[targets[token] as usize * n + token] - tops[token]
            })
            .collect();
        // The parts' sums are added in their order, whoever was done first.
        let parts: Vec<Vec<f32>> = logits
            .par_chunks_mut(ENTRIES * n)
            .map(|part| {
                part.chunks_exact_mut(n).for_each(|row| {
                    row.iter_mut().zip(&tops).for_each(|(v, top)| *v -= top);
                    simd::exp_all(row);
                });
                columns(part, n, 0.0, |sum, v| sum + v)
            })
            .collect();
        let mut sums = vec![0.0f32; n];
        parts.iter().for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v));
        Self { logits, sums, right }
    }

    /// Turns the logits into the gradient by them: the probability, less 1 for the target, times what the loss counts.
    fn differ(&mut self, targets: &[u32], by_loss: &[f32]) {
        let n = targets.len();
        let shares: Vec<f32> = self.sums.iter().zip(by_loss).map(|(sum, g)| g / sum).collect();
        let rows = self.logits.par_chunks_mut(n).with_min_len(64);
        rows.for_each(|row| row.iter_mut().zip(&shares).for_each(|(v, s)| *v *= s));
        for (token, (target, g)) in targets.iter().zip(by_loss).enumerate() {
            self.logits[*target as usize * n + token] -= g;
        }
    }

    /// The gradient by the tokens' vectors, `[tokens, width]`, of what [`Self::differ`] left.
    fn by_hidden(&self, head: &[f32], width: usize) -> impl Iterator<Item = f32> {
        let n = self.sums.len();
        // [width, tokens]
        let mut turned = vec![0.0f32; width * n];
        for (head, part) in head.chunks(ENTRIES * width).zip(self.logits.chunks(ENTRIES * n)) {
            let head = View::new(head, head.len() / width, width).transposed();
            let part = matmul(head, View::new(part, part.len() / n, n), Then::Nothing);
            turned.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
        }
        (0..n * width).map(move |i| turned[i % width * n + i / width])
    }
}

/// Folds the rows of [.., n] into one.
fn columns(part: &[f32], n: usize, begin: f32, fold: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut all = vec![begin; n];
    part.chunks_exact(n).for_each(|row| all.iter_mut().zip(row).for_each(|(a, v)| *a = fold(*a, *v)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    #[test]
    fn losses_and_gradients_are_those_of_the_plain_sums() {
        let (tokens, width, entries) = (300, 8, 5000);
        let (hidden, head) = (random(tokens * width, "h"), random(entries * width, "w"));
        let targets: Vec<u32> = (0..tokens as u32).map(|t| t * 16 % entries as u32).collect();
        let found = cross_entropy(&hidden, &head, width, &targets, true);
        for token in (0..tokens).step_by(29) {
            let vector = &hidden[token * width..][..width];
            let logit = |e: usize| -> f64 {
                vector.iter().zip(&head[e * width..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let sum: f64 = (0..entries).map(|e| logit(e).exp()).sum();
            let loss = sum.ln() - logit(targets[token] as usize);
            assert!((f64::from(found.losses[token]) - loss).abs() < 1e-4, "{token}");
            for c in 0..width {
                let mean: f64 = (0..entries).map(|e| logit(e).exp() / sum * f64::from(head[e * width + c])).sum();
                let grad = mean - f64::from(head[targets[token] as usize * width + c]);
                assert!((f64::from(found.grads[token * width + c]) - grad).abs() < 1e-4, "{token} {c}");
            }
        }
        assert_eq!(cross_entropy(&hidden, &head, width, &targets, false).losses, found.losses);
    }

    #[test]
    fn the_matrix_gets_the_gradient_that_differences_say() {
        let (tokens, width, entries) = (270, 6, 40);
        let (hidden, mut head) = (random(tokens * width, "h"), random(entries * width, "w"));
        let by_loss = random(tokens, "g");
        let targets: Vec<u32> = (0..tokens as u32).map(|t| t * 7 % entries as u32).collect();
        let (by_hidden, by_head) = cross_entropy_grads(&hidden, &head, width, &targets, &by_loss);
        let unit = cross_entropy(&hidden, &head, width, &targets, true).grads;
        for (i, found) in by_hidden.iter().enumerate() {
            assert!((found - unit[i] * by_loss[i / width]).abs() < 1e-5, "{i}");
        }
        let value = |head: &[f32]| -> f64 {
            let losses = cross_entropy(&hidden, head, width, &targets, false).losses;
            losses.iter().zip(&by_loss).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        for i in (0..head.len()).step_by(11) {
            let own = head[i];
            let mut at = |delta: f32| {
                head[i] = own + delta;
                value(&head)
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            head[i] = own;
            assert!(
                (numeric - f64::from(by_head[i])).abs() < 1e-2 * (1.0 + numeric.abs()),
                "{i}: {numeric} {}",
                by_head[i]
            );
        }
    }
}
