//! Texts that lie one after the other in one row, without padding (Krell et al., "Efficient sequence packing without
//! cross-contamination", 2021): each is cut out, computed as if it stood alone, and laid back.

use rayon::prelude::*;

use super::attention::{self, Scope, Shape};
use super::{kernels, segments};

/// Some texts: their tokens, one after the other.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Tokens of each.
    pub lengths: Vec<usize>,
    /// Width of a head.
    pub width: usize,
}

impl Packed {
    /// Computes each text of tensors [heads, tokens, width] by itself: `run` gets its parts and its length.
    fn each<const N: usize>(
        &self,
        args: &[&[f32]],
        run: impl Fn(&[Vec<f32>], usize) -> [Vec<f32>; N] + Sync,
    ) -> [Vec<f32>; N] {
        let row: usize = self.lengths.iter().sum::<usize>() * self.width;
        let places: Vec<(usize, usize)> = segments(&self.lengths).collect();
        let found: Vec<[Vec<f32>; N]> = places
            .par_iter()
            .map(|(start, len)| {
                let of_head = |head: &[f32]| head[start * self.width..][..len * self.width].to_vec();
                let cut = |x: &&[f32]| x.chunks_exact(row).flat_map(of_head).collect();
                run(&args.iter().map(cut).collect::<Vec<Vec<f32>>>(), *len)
            })
            .collect();
        std::array::from_fn(|n| {
            let size: usize = found.iter().map(|parts| parts[n].len()).sum();
            let mut out = vec![0.0; size];
            for ((start, len), parts) in places.iter().zip(&found) {
                let part = len * self.width;
                for (out, part) in out.chunks_exact_mut(row).zip(parts[n].chunks_exact(part)) {
                    out[start * self.width..][..part.len()].copy_from_slice(part);
                }
            }
            out
        })
    }

    /// [`kernels::rope`] of [heads, tokens, width], or its gradient.
    pub fn rope(&self, x: &[f32], base: f32, backward: bool) -> Vec<f32> {
        let [out] = self.each(&[x], |args, len| [kernels::rope(&args[0], len, self.width, 0, base, backward)]);
        out
    }

    fn shape(&self, heads: usize, kv_heads: usize, len: usize, scale: f32) -> Shape {
        let scope = Scope { lengths: vec![len].into(), causal: true };
        Shape { rows: 1, heads, kv_heads, queries: len, keys: len, width: self.width, scale, scope }
    }

    /// Causal [`attention::attention`] of q [heads, tokens, width], k and v [kv heads, tokens, width] -> as q.
    pub fn attention(&self, [q, k, v]: [&[f32]; 3], [heads, kv_heads]: [usize; 2], scale: f32) -> Vec<f32> {
        let [out] = self.each(&[q, k, v], |args, len| {
            [attention::attention(&args[0], &args[1], &args[2], &self.shape(heads, kv_heads, len, scale))]
        });
        out
    }

    /// Gradients of [`Self::attention`] by q, k and v.
    pub fn attention_grad(
        &self,
        [q, k, v, grad]: [&[f32]; 4],
        [heads, kv_heads]: [usize; 2],
        scale: f32,
    ) -> [Vec<f32>; 3] {
        self.each(&[q, k, v, grad], |args, len| {
            let shape = self.shape(heads, kv_heads, len, scale);
            attention::attention_grad(&args[0], &args[1], &args[2], &args[3], &shape)
        })
    }
}
