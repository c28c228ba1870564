//! GPTQ: Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: accurate post-training quantization for generative pre-trained
//! transformers", 2022. Columns are rounded one after the other, and what each is off by is made up for by those that come
//! after it, as far as the inputs let it.

use rayon::prelude::*;

use crate::affine::{self, Affine, Form};
use crate::gemm::{Then, View, matmul};
use crate::gram::{Gram, upper_of_inverse};

/// Share of the mean of the diagonal that is added to it, as in the paper.
const DAMPING: f64 = 0.01;
/// Columns whose errors are carried to the rest at once; a multiple of every group.
const BLOCK: usize = 128;

/// Rounds a matrix [out, inner] by the inputs it had, in a form with a grid for each group. None where the inputs say nothing
/// of it: they are all zero, or no numbers.
pub fn round(values: &[f32], gram: &Gram, form: &Form) -> Option<Affine> {
    let (inner, group) = (gram.inner, form.group);
    let mut sums = gram.sums.clone();
    for i in 0..inner {
        // An input that is always zero: its weights are of no moment.
        if sums[i * inner + i] == 0.0 {
            sums[i * inner + i] = 1.0;
        }
    }
    let upper = upper_of_inverse(&sums, inner, DAMPING)?;
    let upper: Vec<f32> = upper.into_iter().map(|v| v as f32).collect();
    let (rows, groups) = (values.len() / inner, inner / group);
    let mut rest = values.to_vec();
    let (mut codes, mut scales, mut biases) =
        (vec![0u8; rows * inner], vec![0.0; rows * groups], vec![0.0; rows * groups]);
    let mut errors = vec![0.0f32; rows * BLOCK];
    for begin in (0..inner).step_by(BLOCK) {
        let width = BLOCK.min(inner - begin);
        let parts = rest.par_chunks_mut(inner).zip(codes.par_chunks_mut(inner)).zip(errors.par_chunks_mut(BLOCK));
        let parts = parts.zip(scales.par_chunks_mut(groups)).zip(biases.par_chunks_mut(groups));
        parts.for_each(|((((row, codes), errors), scales), biases)| {
            for (i, kept) in errors[..width].iter_mut().enumerate() {
                let at = begin + i;
                if at.is_multiple_of(group) {
                    // The grid is of the weights as they are now, what came before made up for.
                    let (scale, bias) = affine::grid_of(&row[at..at + group], form);
                    (scales[at / group], biases[at / group]) = (scale, bias);
                }
                let (scale, bias) = (scales[at / group], biases[at / group]);
                let code = affine::code_of(row[at], (scale, bias), form);
                codes[at] = code as u8;
                let factors = &upper[at * inner + at..at * inner + begin + width];
                let error = (row[at] - (code * scale + bias)) / factors[0];
                *kept = error;
                row[at + 1..begin + width].iter_mut().zip(&factors[1..]).for_each(|(w, f)| *w -= error * f);
            }
        });
        let after = begin + width;
        if after < inner {
            let errors = View { columns: width, ..View::new(&errors, rows, BLOCK) };
            let factors = View {
                values: &upper[begin * inner + after..],
                rows: width,
                columns: inner - after,
                row_stride: inner,
                column_stride: 1,
            };
            let carried = matmul(errors, factors, Then::Nothing);
            let parts = rest.par_chunks_mut(inner).zip(carried.par_chunks(inner - after));
            parts.for_each(|(row, carried)| row[after..].iter_mut().zip(carried).for_each(|(w, c)| *w -= c));
        }
    }
    Some(Affine { words: affine::pack_codes(&codes, form.bits), scales, biases })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    /// Inputs of which a few directions hold most, as those of a model's matrices are.
    fn inputs(n: usize, inner: usize) -> Vec<f32> {
        let (own, common) = (random(n * inner, "own"), random(n * 8, "common"));
        let mixes = random(8 * inner, "mixes");
        let mut x: Vec<f32> = own.iter().map(|v| 0.3 * v).collect();
        for (x, common) in x.chunks_mut(inner).zip(common.chunks(8)) {
            for (c, mix) in common.iter().zip(mixes.chunks(inner)) {
                x.iter_mut().zip(mix).for_each(|(x, m)| *x += c * m);
            }
        }
        x
    }

    #[test]
    fn products_are_nearer_than_by_rounding_alone() {
        let (rows, inner) = (24, 256);
        let values = random(rows * inner, "weights");
        let mut gram = Gram::new(inner);
        gram.add(&inputs(600, inner));
        for bits in [2, 3, 4] {
            let error = |made: &Affine| {
                let codes = affine::codes(&made.words, bits);
                let off: Vec<f32> = (0..values.len())
                    .map(|i| values[i] - (f32::from(codes[i]) * made.scales[i / 64] + made.biases[i / 64]))
                    .collect();
                gram.error(&off)
            };
            let form = Form::new(bits, 64);
            let (plain, _) = affine::round(&values, inner, &form);
            let made = round(&values, &gram, &form).expect("inputs that say something");
            let (plain, made) = (error(&plain), error(&made));
            assert!(made < 0.5 * plain, "{bits} bits: {made} {plain}");
        }
    }

    #[test]
    fn inputs_that_say_nothing_of_each_other_change_nothing() {
        let values = random(4 * 128, "weights");
        let mut gram = Gram::new(128);
        gram.sums = (0..128 * 128).map(|at| if at % 129 == 0 { 3.0 } else { 0.0 }).collect();
        gram.count = 1;
        let form = Form::new(4, 64);
        assert_eq!(round(&values, &gram, &form), Some(affine::round(&values, 128, &form).0));
    }

    #[test]
    fn one_thread_and_three_give_the_same_bits() {
        let values = random(40 * 256, "weights");
        let x = inputs(300, 256);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let mut gram = Gram::new(256);
                gram.add(&x);
                round(&values, &gram, &Form::new(3, 64))
            })
        };
        assert_eq!(run(1), run(3));
    }
}
