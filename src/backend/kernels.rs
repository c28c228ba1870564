//! Our own CPU kernels, on plain slices, where the library's are slow or drop gradients.
//!
//! Pictures are NHWC: a depth-wise convolution then runs along contiguous channels, and a point-wise one is
//! a matrix product. Work is cut into pieces by shape alone and each output element is summed in one order,
//! so the bytes do not depend on the number of threads.

use rayon::prelude::*;

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
pub fn depthwise(x: &[f32], weight: &[f32], [n, h, w, c]: [usize; 4], win: Window) -> Vec<f32> {
    let mut out = vec![0.0; n * win.out_h * win.out_w * c];
    let row = win.out_w * c;
    out.par_chunks_mut(row.max(1)).enumerate().for_each(|(i, out_row)| {
        let (image, oy) = (i / win.out_h, i % win.out_h);
        let x = &x[image * h * w * c..][..h * w * c];
        for ky in 0..win.size {
            let Some(y) = (oy * win.stride + ky).checked_sub(win.before).filter(|y| *y < h) else { continue };
            for (ox, out) in out_row.chunks_exact_mut(c).enumerate() {
                for kx in 0..win.size {
                    let Some(xx) = (ox * win.stride + kx).checked_sub(win.before).filter(|x| *x < w) else { continue };
                    let source = &x[(y * w + xx) * c..][..c];
                    let taps = &weight[(ky * win.size + kx) * c..][..c];
                    for ((o, s), t) in out.iter_mut().zip(source).zip(taps) {
                        *o += s * t;
                    }
                }
            }
        }
    });
    out
}

/// Gradient of [`depthwise`] by its input: grad [n, out_h, out_w, c] -> [n, h, w, c].
pub fn depthwise_grad(grad: &[f32], weight: &[f32], [n, h, w, c]: [usize; 4], win: Window) -> Vec<f32> {
    let mut out = vec![0.0; n * h * w * c];
    out.par_chunks_mut((h * w * c).max(1)).enumerate().for_each(|(image, out)| {
        let grad = &grad[image * win.out_h * win.out_w * c..][..win.out_h * win.out_w * c];
        for oy in 0..win.out_h {
            for ky in 0..win.size {
                let Some(y) = (oy * win.stride + ky).checked_sub(win.before).filter(|y| *y < h) else { continue };
                for ox in 0..win.out_w {
                    let g = &grad[(oy * win.out_w + ox) * c..][..c];
                    for kx in 0..win.size {
                        let Some(xx) = (ox * win.stride + kx).checked_sub(win.before).filter(|x| *x < w) else {
                            continue;
                        };
                        let taps = &weight[(ky * win.size + kx) * c..][..c];
                        for ((o, g), t) in out[(y * w + xx) * c..][..c].iter_mut().zip(g).zip(taps) {
                            *o += g * t;
                        }
                    }
                }
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
    let c = scale.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(c * 64).zip(x.par_chunks(c * 64)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
            for i in 0..c {
                out[i] = (x[i] * scale[i] + shift[i]).clamp(low, high);
            }
        }
    });
    out
}

/// Gradient of [`scale_shift`] by x, from its result: no gradient where it was clamped.
pub fn scale_shift_grad(result: &[f32], grad: &[f32], scale: &[f32], low: f32, high: f32) -> Vec<f32> {
    let c = scale.len();
    let mut out = vec![0.0; grad.len()];
    out.par_chunks_mut(c).zip(result.par_chunks(c)).zip(grad.par_chunks(c)).for_each(|((out, y), g)| {
        for i in 0..c {
            out[i] = if y[i] > low && y[i] < high { g[i] * scale[i] } else { 0.0 };
        }
    });
    out
}

/// Layer norm over the last axis of `c`. Ba, Kiros and Hinton, 2016.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let c = weight.len();
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(c).zip(x.par_chunks(c)).for_each(|(out, x)| {
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
    out.par_chunks_mut(c).zip(x.par_chunks(c)).zip(grad.par_chunks(c)).for_each(|((out, x), g)| {
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
    out.par_chunks_mut(c).zip(x.par_chunks(c)).for_each(|(out, x)| {
        let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (o, v) in out.iter_mut().zip(x) {
            *o = (v - top).exp();
            sum += *o;
        }
        out.iter_mut().for_each(|o| *o /= sum);
    });
    out
}

/// Gradient of [`softmax`] from its result.
pub fn softmax_grad(result: &[f32], grad: &[f32], c: usize) -> Vec<f32> {
    let mut out = vec![0.0; result.len()];
    out.par_chunks_mut(c).zip(result.par_chunks(c)).zip(grad.par_chunks(c)).for_each(|((out, y), g)| {
        let dot: f32 = y.iter().zip(g).map(|(y, g)| y * g).sum();
        for i in 0..c {
            out[i] = y[i] * (g[i] - dot);
        }
    });
    out
}

/// The Gaussian error linear unit with the error function. Hendrycks and Gimpel, 2016.
pub fn gelu(x: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(4096).zip(x.par_chunks(4096)).for_each(|(out, x)| {
        for (o, v) in out.iter_mut().zip(x) {
            *o = 0.5 * v * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2));
        }
    });
    out
}

/// Gradient of [`gelu`].
pub fn gelu_grad(x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(4096).zip(x.par_chunks(4096)).zip(grad.par_chunks(4096)).for_each(|((out, x), g)| {
        for ((o, v), g) in out.iter_mut().zip(x).zip(g) {
            let density = (-0.5 * v * v).exp() * 0.398_942_3;
            *o = g * (0.5 * (1.0 + erf(v * std::f32::consts::FRAC_1_SQRT_2)) + v * density);
        }
    });
    out
}

/// The error function to 1.5e-7: Abramowitz and Stegun, 7.1.26.
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let poly = t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152_1 + t * 1.061_405_4))));
    (1.0 - poly * (-a * a).exp()).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rng::Rng;

    fn random(n: usize, name: &str) -> Vec<f32> {
        let mut rng = Rng::new(1, name);
        (0..n).map(|_| rng.normal()).collect()
    }

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
        }
        let (w, b, g) = (random(5, "w"), random(5, "b"), random(x.len(), "g"));
        check_grad(&x, &g, &|x| layer_norm(x, &w, &b, 1e-5), &layer_norm_grad(&x, &w, &g, 1e-5));
        check_grad(&x, &g, &|x| softmax(x, 5), &softmax_grad(&softmax(&x, 5), &g, 5));
        check_grad(&x, &g, &gelu, &gelu_grad(&x, &g));
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
