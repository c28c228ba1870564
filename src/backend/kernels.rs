//! Our own CPU kernels, on plain slices, where the library's are slow or drop gradients.
//!
//! Pictures are NHWC: a depth-wise convolution then runs along contiguous channels, and a point-wise one is
//! a matrix product. Work is cut into pieces by shape alone and each output element is summed in one order,
//! so the bytes do not depend on the number of threads.

use rayon::prelude::*;

use super::simd;

/// Geometry of a convolution over NHWC pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the kernel.
    pub size: usize,
    /// Step.
    pub stride: usize,
    /// Rows of zeros above and columns to the left.
    pub before: usize,
    /// Height of the output.
    pub out_h: usize,
    /// Width of the output.
    pub out_w: usize,
}

impl Window {
    /// TensorFlow's "same" padding: `ceil(n / stride)` outputs, the odd zero at the end.
    pub fn same(h: usize, w: usize, size: usize, stride: usize) -> Self {
        debug_assert_eq!(h, w, "pictures are square here");
        let out_h = h.div_ceil(stride);
        let pad = ((out_h - 1) * stride + size).saturating_sub(h);
        Self { size, stride, before: pad / 2, out_h, out_w: w.div_ceil(stride) }
    }
}

/// Depth-wise convolution. x [n, h, w, c], weight [size, size, c] -> [n, out_h, out_w, c].
pub fn depthwise(x: &[f32], weight: &[f32], shape: [usize; 4], win: Window) -> Vec<f32> {
    depthwise_then(x, weight, shape, win, None)
}

/// Scale, shift, and the bounds of the clamp.
pub type ScaleShift<'a> = (&'a [f32], &'a [f32], f32, f32);

/// [`depthwise`], then [`scale_shift`] while the row is in the cache.
pub fn depthwise_then(
    x: &[f32],
    weight: &[f32],
    [n, h, w, c]: [usize; 4],
    win: Window,
    then: Option<ScaleShift<'_>>,
) -> Vec<f32> {
    let mut out = vec![0.0; n * win.out_h * win.out_w * c];
    let row = win.out_w * c;
    out.par_chunks_mut(row.max(1)).enumerate().for_each(|(i, out_row)| {
        let (image, oy) = (i / win.out_h, i % win.out_h);
        let mut taps = Vec::with_capacity(win.size * win.size);
        for (ox, out) in out_row.chunks_exact_mut(c).enumerate() {
            taps.clear();
            for ky in 0..win.size {
                let Some(y) = (oy * win.stride + ky).checked_sub(win.before).filter(|y| *y < h) else { continue };
                for kx in 0..win.size {
                    let Some(xx) = (ox * win.stride + kx).checked_sub(win.before).filter(|x| *x < w) else { continue };
                    taps.push((((image * h + y) * w + xx) * c, (ky * win.size + kx) * c));
                }
            }
            simd::taps(out, x, weight, &taps);
        }
        if let Some((scale, shift, low, high)) = then {
            simd::scale_shift(out_row, scale, shift, low, high);
        }
    });
    out
}

/// Gradient of [`depthwise`] by its input: grad [n, out_h, out_w, c] -> [n, h, w, c].
pub fn depthwise_grad(grad: &[f32], weight: &[f32], [n, h, w, c]: [usize; 4], win: Window) -> Vec<f32> {
    let mut out = vec![0.0; n * h * w * c];
    // The output pixel that saw input `i` through tap `k`, if one did.
    let seen = |i: usize, k: usize, len: usize| {
        let from = (i + win.before).checked_sub(k)?;
        (from.is_multiple_of(win.stride) && from / win.stride < len).then_some(from / win.stride)
    };
    out.par_chunks_mut((w * c).max(1)).enumerate().for_each(|(i, row)| {
        let (image, y) = (i / h, i % h);
        let mut taps = Vec::with_capacity(win.size * win.size);
        for (x, out) in row.chunks_exact_mut(c).enumerate() {
            taps.clear();
            for ky in 0..win.size {
                let Some(oy) = seen(y, ky, win.out_h) else { continue };
                for kx in 0..win.size {
                    let Some(ox) = seen(x, kx, win.out_w) else { continue };
                    taps.push((((image * win.out_h + oy) * win.out_w + ox) * c, (ky * win.size + kx) * c));
                }
            }
            simd::taps(out, grad, weight, &taps);
        }
    });
    out
}

/// Gradient of [`depthwise`] by its weight: x [n, h, w, c], grad [n, out_h, out_w, c] -> [size, size, c].
pub fn depthwise_weight_grad(x: &[f32], grad: &[f32], [n, h, w, c]: [usize; 4], win: Window) -> Vec<f32> {
    let mut out = vec![0.0; win.size * win.size * c];
    out.par_chunks_mut(c.max(1)).enumerate().for_each(|(tap, out)| {
        let (ky, kx) = (tap / win.size, tap % win.size);
        for i in 0..n * win.out_h {
            let (image, oy) = (i / win.out_h, i % win.out_h);
            let Some(y) = (oy * win.stride + ky).checked_sub(win.before).filter(|y| *y < h) else { continue };
            for ox in 0..win.out_w {
                let Some(xx) = (ox * win.stride + kx).checked_sub(win.before).filter(|x| *x < w) else { continue };
                let source = &x[((image * h + y) * w + xx) * c..][..c];
                simd::add_product(out, source, &grad[(i * win.out_w + ox) * c..][..c]);
            }
        }
    });
    out
}

/// Patches for a convolution as a matrix product. x [n, h, w, c] -> [n * out_h * out_w, size * size * c].
pub fn patches(x: &[f32], [n, h, w, c]: [usize; 4], win: Window) -> Vec<f32> {
    let width = win.size * win.size * c;
    let mut out = vec![0.0; n * win.out_h * win.out_w * width];
    out.par_chunks_mut(win.out_w * width).enumerate().for_each(|(i, row)| {
        let (image, oy) = (i / win.out_h, i % win.out_h);
        for (ox, patch) in row.chunks_exact_mut(width).enumerate() {
            for ky in 0..win.size {
                let Some(y) = (oy * win.stride + ky).checked_sub(win.before).filter(|y| *y < h) else { continue };
                for kx in 0..win.size {
                    let Some(xx) = (ox * win.stride + kx).checked_sub(win.before).filter(|x| *x < w) else { continue };
                    let from = ((image * h + y) * w + xx) * c;
                    patch[(ky * win.size + kx) * c..][..c].copy_from_slice(&x[from..from + c]);
                }
            }
        }
    });
    out
}

/// `clamp(x * scale + shift)` along the last axis of `c`: a folded batch norm and ReLU6 in one pass.
pub fn scale_shift(x: &[f32], scale: &[f32], shift: &[f32], low: f32, high: f32) -> Vec<f32> {
    let mut out = x.to_vec();
    out.par_chunks_mut((scale.len() * 64).max(1)).for_each(|out| simd::scale_shift(out, scale, shift, low, high));
    out
}

/// The sum of two arrays of one length.
pub fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    let parts = out.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE));
    parts.for_each(|((out, a), b)| simd::add(out, a, b));
    out
}

/// The products of two arrays of one length, element by element.
pub fn multiply(a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    let parts = out.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).zip(b.par_chunks(PIECE));
    parts.for_each(|((out, a), b)| simd::multiply_each(out, a, b));
    out
}

/// The numbers of one step of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second.
    pub beta2: f32,
    /// The learning rate over the first moment's bias correction.
    pub rate: f32,
    /// Square root of the second moment's bias correction.
    pub correct2: f32,
    /// Added to the root, so that nothing is divided by zero.
    pub eps: f32,
    /// What the weights are multiplied by first.
    pub decay: f32,
}

/// One step of AdamW on the values and moments of a parameter, in place.
pub fn adamw(values: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], step: &AdamStep) {
    let pieces = values.par_chunks_mut(PIECE).zip(grad.par_chunks(PIECE));
    let pieces = pieces.zip(m.par_chunks_mut(PIECE)).zip(v.par_chunks_mut(PIECE));
    pieces.for_each(|(((values, grad), m), v)| simd::adamw(values, grad, m, v, step));
}

/// One step of gradient descent with momentum on the values of a parameter, in place: `m = momentum m + g + decay x`,
/// `x -= rate m`. Sutskever, Martens, Dahl and Hinton, 2013, as PyTorch has it.
pub fn sgd(values: &mut [f32], grad: &[f32], m: &mut [f32], rate: f32, momentum: f32, decay: f32) {
    let pieces = values.par_chunks_mut(PIECE).zip(grad.par_chunks(PIECE)).zip(m.par_chunks_mut(PIECE));
    pieces.for_each(|((values, grad), m)| {
        for ((x, g), m) in values.iter_mut().zip(grad).zip(m) {
            *m = momentum * *m + (g + decay * *x);
            *x -= rate * *m;
        }
    });
}

/// Elements of a piece of element-wise work: 64 KiB, so that a piece stays near and pays for its dispatch.
const PIECE: usize = 16_384;

/// Gradient of [`scale_shift`] by x, from its result: no gradient where it was clamped.
pub fn scale_shift_grad(result: &[f32], grad: &[f32], scale: &[f32], low: f32, high: f32) -> Vec<f32> {
    let c = scale.len();
    let mut out = vec![0.0; grad.len()];
    out.par_chunks_mut(c).with_min_len(64).zip(result.par_chunks(c)).zip(grad.par_chunks(c)).for_each(
        |((out, y), g)| {
            for i in 0..c {
                out[i] = if y[i] > low && y[i] < high { g[i] * scale[i] } else { 0.0 };
            }
        },
    );
    out
}

/// Layer norm over the last axis of `c`. Ba, Kiros and Hinton, 2016.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let c = weight.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(c).with_min_len(32).zip(x.par_chunks(c)).for_each(|(out, x)| {
        let (mean, scale) = moments(x, eps);
        for i in 0..c {
            out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
        }
    });
    out
}

/// Gradient of [`layer_norm`] by x.
pub fn layer_norm_grad(x: &[f32], weight: &[f32], grad: &[f32], eps: f32) -> Vec<f32> {
    let c = weight.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(c).with_min_len(32).zip(x.par_chunks(c)).zip(grad.par_chunks(c)).for_each(|((out, x), g)| {
        let (mean, scale) = moments(x, eps);
        let n = c as f32;
        let (mut sum, mut dot) = (0.0, 0.0);
        for i in 0..c {
            let gw = g[i] * weight[i];
            sum += gw;
            dot += gw * (x[i] - mean) * scale;
        }
        for i in 0..c {
            let normal = (x[i] - mean) * scale;
            out[i] = scale * (g[i] * weight[i] - sum / n - normal * dot / n);
        }
    });
    out
}

fn moments(x: &[f32], eps: f32) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = x.iter().sum::<f32>() / n;
    let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// Softmax over the last axis of `c`.
pub fn softmax(x: &[f32], c: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(c).with_min_len(32).zip(x.par_chunks(c)).for_each(|(out, x)| {
        let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (o, v) in out.iter_mut().zip(x) {
            *o = v - top;
        }
        simd::exp_all(out);
        for o in out.iter() {
            sum += o;
        }
        out.iter_mut().for_each(|o| *o /= sum);
    });
    out
}

/// Gradient of [`softmax`] from its result.
pub fn softmax_grad(result: &[f32], grad: &[f32], c: usize) -> Vec<f32> {
    let mut out = vec![0.0; result.len()];
    out.par_chunks_mut(c).with_min_len(32).zip(result.par_chunks(c)).zip(grad.par_chunks(c)).for_each(
        |((out, y), g)| {
            let dot: f32 = y.iter().zip(g).map(|(y, g)| y * g).sum();
            for i in 0..c {
                out[i] = y[i] * (g[i] - dot);
            }
        },
    );
    out
}

/// The Gaussian error linear unit with the error function. Hendrycks and Gimpel, 2016.
pub fn gelu(x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(out, x)| simd::gelu(out, x));
    out
}

/// Gradient of [`gelu`].
pub fn gelu_grad(x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let parts = out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).zip(grad.par_chunks(PIECE));
    parts.for_each(|((out, x), g)| simd::gelu_grad(out, x, g));
    out
}

/// The Kullback-Leibler divergence of softmax(q) from softmax(p), in nats: of each row of `width` logits.
pub fn divergences(p: &[f32], q: &[f32], width: usize) -> Vec<f64> {
    p.par_chunks(width)
        .zip(q.par_chunks(width))
        .map(|(p, q)| {
            let (mut own, mut theirs) = (p.to_vec(), q.to_vec());
            let [p_log, q_log] = [&mut own, &mut theirs].map(|row| {
                let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                row.iter_mut().for_each(|v| *v -= top);
                let shifted = row.clone();
                simd::exp_all(row);
                (shifted, row.iter().map(|v| f64::from(*v)).sum::<f64>().ln())
            });
            let total: f64 = own.iter().map(|v| f64::from(*v)).sum();
            let terms = own.iter().zip(p_log.0.iter().zip(&q_log.0));
            let mean: f64 = terms.map(|(weight, (p, q))| f64::from(*weight) * (f64::from(*p) - f64::from(*q))).sum();
            // Rounding may leave less than nothing.
            (mean / total - p_log.1 + q_log.1).max(0.0)
        })
        .collect()
}

/// Of each row of `width` logits: its target's loss, in nats, and the most likely token (the first of equals).
pub fn foreseen(logits: &[f32], width: usize, targets: &[u32]) -> Vec<(f32, u32)> {
    logits
        .par_chunks(width)
        .zip(targets)
        .map(|(row, target)| {
            let most = row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best });
            let mut shifted: Vec<f32> = row.iter().map(|v| v - row[most]).collect();
            let own = shifted[*target as usize];
            simd::exp_all(&mut shifted);
            let sum: f64 = shifted.iter().map(|v| f64::from(*v)).sum();
            (sum.ln() as f32 - own, most as u32)
        })
        .collect()
}

/// GELU by a sigmoid, `x * sigmoid(1.702 x)`: what CLIP was trained with.
pub fn quick_gelu(x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(out, x)| simd::quick_gelu(out, x));
    out
}

/// Gradient of [`quick_gelu`].
pub fn quick_gelu_grad(x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let parts = out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).zip(grad.par_chunks(PIECE));
    parts.for_each(|((out, x), g)| simd::quick_gelu_grad(out, x, g));
    out
}

/// Gradients of [`layer_norm`] by its weight and bias, each `[c]`; summed over the rows in their order.
pub fn layer_norm_weight_grads(x: &[f32], c: usize, grad: &[f32], eps: f32) -> (Vec<f32>, Vec<f32>) {
    let (mut weight, mut bias) = (vec![0.0; c], vec![0.0; c]);
    for (x, g) in x.chunks_exact(c).zip(grad.chunks_exact(c)) {
        let (mean, scale) = moments(x, eps);
        for i in 0..c {
            weight[i] += g[i] * (x[i] - mean) * scale;
            bias[i] += g[i];
        }
    }
    (weight, bias)
}

/// Root-mean-square norm over the last axis of `c`. Zhang and Sennrich, 2019.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let c = weight.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(c).with_min_len(32).zip(x.par_chunks(c)).for_each(|(out, x)| {
        let scale = inverse_root(x, eps);
        for i in 0..c {
            out[i] = x[i] * scale * weight[i];
        }
    });
    out
}

/// Gradient of [`rms_norm`] by x.
pub fn rms_norm_grad(x: &[f32], weight: &[f32], grad: &[f32], eps: f32) -> Vec<f32> {
    let c = weight.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(c).with_min_len(32).zip(x.par_chunks(c)).zip(grad.par_chunks(c)).for_each(|((out, x), g)| {
        let scale = inverse_root(x, eps);
        let dot: f32 = (0..c).map(|i| g[i] * weight[i] * x[i]).sum();
        let along = dot * scale * scale / c as f32;
        for i in 0..c {
            out[i] = scale * (g[i] * weight[i] - x[i] * along);
        }
    });
    out
}

/// Gradient of [`rms_norm`] by its weight `[c]`; summed over the rows in their order.
pub fn rms_norm_weight_grad(x: &[f32], c: usize, grad: &[f32], eps: f32) -> Vec<f32> {
    let mut weight = vec![0.0; c];
    for (x, g) in x.chunks_exact(c).zip(grad.chunks_exact(c)) {
        let scale = inverse_root(x, eps);
        for i in 0..c {
            weight[i] += g[i] * x[i] * scale;
        }
    }
    weight
}

fn inverse_root(x: &[f32], eps: f32) -> f32 {
    1.0 / (x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32 + eps).sqrt()
}

/// Rotary position embedding of x [.., length, width], whose first row is at `offset`. Su et al., 2021, in the form of
/// Hugging Face's Llama: component i of a head's first half turns with component i of its second, by
/// `position / base^(2 i / width)`. Backward, the other way round, is its gradient.
pub fn rope(x: &[f32], length: usize, width: usize, offset: usize, base: f32, backward: bool) -> Vec<f32> {
    let half = width / 2;
    let turns: Vec<(f32, f32)> = (0..length)
        .flat_map(|position| {
            (0..half).map(move |i| {
                let frequency = 1.0 / base.powf(2.0 * i as f32 / width as f32);
                let (sin, cos) = ((offset + position) as f32 * frequency).sin_cos();
                (if backward { -sin } else { sin }, cos)
            })
        })
        .collect();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut((length * width).max(1)).zip(x.par_chunks((length * width).max(1))).for_each(|(out, x)| {
        let rows = out.chunks_exact_mut(width).zip(x.chunks_exact(width));
        for ((out, x), turns) in rows.zip(turns.chunks_exact(half)) {
            for (i, (sin, cos)) in turns.iter().enumerate() {
                out[i] = x[i] * cos - x[half + i] * sin;
                out[half + i] = x[half + i] * cos + x[i] * sin;
            }
        }
    });
    out
}

/// `silu(gate) * up`: the gated unit of Llama's feed-forward blocks. Shazeer, 2020.
pub fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; gate.len()];
    let parts = out.par_chunks_mut(PIECE).zip(gate.par_chunks(PIECE)).zip(up.par_chunks(PIECE));
    parts.for_each(|((out, gate), up)| simd::swiglu(out, gate, up));
    out
}

/// Gradients of [`swiglu`] by gate and up.
pub fn swiglu_grad(gate: &[f32], up: &[f32], grad: &[f32]) -> [Vec<f32>; 2] {
    let (mut by_gate, mut by_up) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    let parts = by_gate.par_chunks_mut(PIECE).zip(by_up.par_chunks_mut(PIECE));
    let parts = parts.zip(gate.par_chunks(PIECE)).zip(up.par_chunks(PIECE)).zip(grad.par_chunks(PIECE));
    parts.for_each(|((((by_gate, by_up), gate), up), g)| simd::swiglu_grad(by_gate, by_up, gate, up, g));
    [by_gate, by_up]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    /// Compares an analytic gradient with central differences of `sum(f(x) * g)`.
    fn check_grad(x: &[f32], g: &[f32], f: &dyn Fn(&[f32]) -> Vec<f32>, analytic: &[f32]) {
        for i in (0..x.len()).step_by(3) {
            let eps = 1e-2;
            let at = |delta: f32| -> f64 {
                let mut moved = x.to_vec();
                moved[i] += delta;
                f(&moved).iter().zip(g).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let numeric = (at(eps) - at(-eps)) / f64::from(2.0 * eps);
            assert!(
                (numeric - f64::from(analytic[i])).abs() < 2e-2 * (1.0 + numeric.abs()),
                "{i}: {numeric} {}",
                analytic[i]
            );
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        let shape = [2, 6, 6, 5];
        let x = random(2 * 36 * 5, "x");
        for (size, stride) in [(3, 1), (5, 2), (3, 2)] {
            let win = Window::same(6, 6, size, stride);
            let weight = random(size * size * 5, "w");
            let g = random(2 * win.out_h * win.out_w * 5, "g");
            check_grad(&x, &g, &|x| depthwise(x, &weight, shape, win), &depthwise_grad(&g, &weight, shape, win));
            let by_weight = depthwise_weight_grad(&x, &g, shape, win);
            check_grad(&weight, &g, &|weight| depthwise(&x, weight, shape, win), &by_weight);
        }
        let (w, b, g) = (random(5, "w"), random(5, "b"), random(x.len(), "g"));
        check_grad(&x, &g, &|x| layer_norm(x, &w, &b, 1e-5), &layer_norm_grad(&x, &w, &g, 1e-5));
        let (by_weight, by_bias) = layer_norm_weight_grads(&x, 5, &g, 1e-5);
        check_grad(&w, &g, &|w| layer_norm(&x, w, &b, 1e-5), &by_weight);
        check_grad(&b, &g, &|b| layer_norm(&x, &w, b, 1e-5), &by_bias);
        check_grad(&x, &g, &|x| softmax(x, 5), &softmax_grad(&softmax(&x, 5), &g, 5));
        check_grad(&x, &g, &gelu, &gelu_grad(&x, &g));
        check_grad(&x, &g, &quick_gelu, &quick_gelu_grad(&x, &g));
        check_grad(&x, &g, &|x| rms_norm(x, &w, 1e-5), &rms_norm_grad(&x, &w, &g, 1e-5));
        check_grad(&w, &g, &|w| rms_norm(&x, w, 1e-5), &rms_norm_weight_grad(&x, 5, &g, 1e-5));
        check_grad(&x, &g, &|x| rope(x, 9, 4, 2, 100.0, false), &rope(&g, 9, 4, 2, 100.0, true));
        let up = random(x.len(), "u");
        let [by_gate, by_up] = swiglu_grad(&x, &up, &g);
        check_grad(&x, &g, &|x| swiglu(x, &up), &by_gate);
        check_grad(&up, &g, &|up| swiglu(&x, up), &by_up);
    }

    #[test]
    fn a_divergence_is_of_the_softmaxes() {
        let (p, q) = (random(3 * 50, "p"), random(3 * 50, "q"));
        let softmax = |row: &[f32]| -> Vec<f64> {
            let all: Vec<f64> = row.iter().map(|v| f64::from(*v).exp()).collect();
            let sum: f64 = all.iter().sum();
            all.into_iter().map(|v| v / sum).collect()
        };
        let found = divergences(&p, &q, 50);
        assert_eq!(found.len(), 3);
        for ((p, q), found) in p.chunks(50).zip(q.chunks(50)).zip(found) {
            let expected = softmax(p).iter().zip(softmax(q)).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
            assert!((found - expected).abs() < 1e-6 * expected, "{found} {expected}");
        }
        assert_eq!(divergences(&p, &p, 50), [0.0; 3]);
    }

    #[test]
    fn what_is_foreseen_is_a_loss_and_the_likeliest() {
        // e^2 / (e^1 + e^2 + e^2 + 1), and 1 / 4.
        let found = foreseen(&[1.0, 2.0, 2.0, 0.0, 3.0, 3.0, 3.0, 3.0], 4, &[2, 3]);
        let expected = (2.0 * 2f32.exp() + 1f32.exp() + 1.0).ln() - 2.0;
        assert!((found[0].0 - expected).abs() < 1e-6 && (found[1].0 - 4f32.ln()).abs() < 1e-6, "{found:?}");
        assert_eq!((found[0].1, found[1].1), (1, 0), "the first of equals");
    }

    #[test]
    fn depthwise_agrees_with_patches() {
        let shape = [1, 7, 7, 3];
        let (x, w) = (random(147, "x"), random(75, "w"));
        let win = Window::same(7, 7, 5, 2);
        let cols = patches(&x, shape, win);
        let fast = depthwise(&x, &w, shape, win);
        for (i, patch) in cols.chunks(75).enumerate() {
            for c in 0..3 {
                let plain: f32 = (0..25).map(|k| patch[k * 3 + c] * w[k * 3 + c]).sum();
                assert!((plain - fast[i * 3 + c]).abs() < 1e-5);
            }
        }
    }
}
