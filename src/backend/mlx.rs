//! MLX behind the tensor interface: its only user. Apple's Metal on a Mac; MLX's CPU build elsewhere, for correctness.
//!
//! MLX is lazy: an operation notes what is to be done, and reading a value does it. Every operation here has a gradient of
//! MLX's own, so none can be lost; a parameter that a loss does not depend on gets zeros.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use mlx_rs::error::Exception;
use mlx_rs::fast::ScaledDotProductAttentionMask;
use mlx_rs::ops::{self, PadWidth};
use mlx_rs::transforms::{eval, value_and_grad_with_argnums};
use mlx_rs::{Array, Device, DeviceType, Dtype, fast};

use super::attention::{self, Scope};
use super::kernels::Window;
use super::{BackendError, Params, Precision, Result, Tensor};

/// A tensor of MLX's. A lazy array belongs to the thread that made it, so it stays there.
#[derive(Clone, Debug)]
pub struct MlxTensor(Array, PhantomData<Rc<()>>);

impl From<Exception> for BackendError {
    fn from(error: Exception) -> Self {
        BackendError::Library(error.what().lines().next().unwrap_or_default().to_owned())
    }
}

/// Finds out whether MLX computes here, by computing: a broken installation says so now and not in the middle.
pub(super) fn probe() -> Result<()> {
    let x = MlxTensor::from_f32(&[1.0, 2.0], &[2])?;
    match x.add(&x)?.to_f32()?[..] {
        [2.0, 4.0] => Ok(()),
        _ => Err(BackendError::Library("MLX cannot add".into())),
    }
}

/// What MLX computes on where it is not told.
pub(super) fn device() -> &'static str {
    match Device::try_default().and_then(|device| device.get_type()) {
        Ok(DeviceType::Gpu) => "the GPU (Metal)",
        Ok(_) => "the CPU",
        Err(_) => "no device",
    }
}

fn wrap(result: std::result::Result<Array, Exception>) -> Result<MlxTensor> {
    Ok(MlxTensor(result?, PhantomData))
}

/// Lengths and numbers as MLX counts them.
fn ints(values: &[usize]) -> Result<Vec<i32>> {
    values.iter().map(|v| int(*v)).collect()
}

fn int(value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| BackendError::Library(format!("{value} is more than MLX counts to")))
}

fn misfit(message: String) -> BackendError {
    BackendError::Library(message)
}

impl MlxTensor {
    fn axes<const N: usize>(&self) -> Result<[usize; N]> {
        let shape = self.shape();
        shape.as_slice().try_into().map_err(|_| misfit(format!("a tensor {shape:?} where {N} axes are meant")))
    }

    /// x [n, h, w, c] with zeros around it, as views of its windows: [n, out_h, out_w, size, size, c].
    fn windows(&self, window: Window) -> Result<Array> {
        let [n, h, w, c] = self.axes()?;
        let Window { size, stride, before, out_h, out_w } = window;
        let after = |out: usize, len: usize| ((out - 1) * stride + size).saturating_sub(len + before);
        let (below, right) = (after(out_h, h), after(out_w, w));
        let pads: Vec<(i32, i32)> = vec![(0, 0), (int(before)?, int(below)?), (int(before)?, int(right)?), (0, 0)];
        let padded = ops::pad(&self.0, PadWidth::Widths(&pads), None::<Array>, None)?;
        let (rows, columns) = (before + h + below, before + w + right);
        let shape = ints(&[n, out_h, out_w, size, size, c])?;
        let line = columns * c;
        let strides: Vec<i64> =
            [rows * line, stride * line, stride * c, line, c, 1].iter().map(|s| *s as i64).collect();
        Ok(ops::as_strided(&padded, &shape[..], &strides[..], 0)?)
    }

    fn check_channels(&self, scale: &Self, shift: &Self) -> Result<()> {
        let width = *self.shape().last().unwrap_or(&1);
        if scale.0.size() != width || shift.0.size() != width {
            return Err(misfit(format!("a scale of {} for {width} channels", scale.0.size())));
        }
        Ok(())
    }
}

impl Tensor for MlxTensor {
    fn from_f32(values: &[f32], shape: &[usize]) -> Result<Self> {
        if values.len() != shape.iter().product::<usize>() {
            return Err(misfit(format!("{} values for a tensor {shape:?}", values.len())));
        }
        Ok(Self(Array::from_slice(values, &ints(shape)?), PhantomData))
    }

    fn to_f32(&self) -> Result<Vec<f32>> {
        let array = self.cast(Precision::F32)?.0.contiguous()?;
        let values = array.try_as_slice::<f32>().map_err(|e| misfit(e.to_string()))?;
        Ok(values.to_vec())
    }

    fn cast(&self, precision: Precision) -> Result<Self> {
        let wanted = match precision {
            Precision::F32 => Dtype::Float32,
            Precision::Bf16 => Dtype::Bfloat16,
        };
        wrap(self.0.as_dtype(wanted))
    }

    fn settled(&self) -> Result<Self> {
        let settled = self.detach();
        settled.0.eval()?;
        Ok(settled)
    }

    fn shape(&self) -> Vec<usize> {
        self.0.shape().iter().map(|n| *n as usize).collect()
    }

    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        wrap(self.0.reshape(&ints(shape)?))
    }

    fn swap_axes(&self, a: usize, b: usize) -> Result<Self> {
        wrap(self.0.swap_axes(int(a)?, int(b)?))
    }

    fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        let whole = self.shape().get(axis).copied().unwrap_or(0);
        if start + len > whole {
            return Err(misfit(format!("entries {start} to {} of an axis of {whole}", start + len)));
        }
        let parts = ops::split_at_indices(&self.0, &ints(&[start, start + len])?, int(axis)?)?;
        wrap(Ok(parts.into_iter().nth(1).expect("cut at two places")))
    }

    fn concat(parts: &[Self], axis: usize) -> Result<Self> {
        let parts: Vec<&Array> = parts.iter().map(|t| &t.0).collect();
        wrap(ops::concatenate(&parts, int(axis)?))
    }

    fn take_rows(&self, ids: &[u32]) -> Result<Self> {
        let rows = self.shape().first().copied().unwrap_or(0);
        // MLX does not look whether a row is there.
        if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
            return Err(misfit(format!("row {id} of {rows}")));
        }
        wrap(self.0.take_axis(Array::from_slice(ids, &[int(ids.len())?]), 0))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        wrap(self.0.add(&other.0))
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        wrap(self.0.subtract(&other.0))
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        wrap(self.0.multiply(&other.0))
    }

    fn div(&self, other: &Self) -> Result<Self> {
        wrap(self.0.divide(&other.0))
    }

    fn affine(&self, factor: f64, offset: f64) -> Result<Self> {
        // The factor is not rounded: in lower precision the result is.
        let scaled = self.0.multiply(Array::from_f32(factor as f32))?;
        let moved = if offset == 0.0 { scaled } else { scaled.add(Array::from_f32(offset as f32))? };
        wrap(moved.as_dtype(self.0.dtype()))
    }

    fn exp(&self) -> Result<Self> {
        wrap(self.0.exp())
    }

    fn log(&self) -> Result<Self> {
        wrap(self.0.log())
    }

    fn sqrt(&self) -> Result<Self> {
        wrap(self.0.sqrt())
    }

    fn gelu(&self) -> Result<Self> {
        let half = self.affine(0.5, 0.0)?;
        let erf = ops::erf(&self.affine(std::f64::consts::FRAC_1_SQRT_2, 0.0)?.0)?;
        wrap(half.0.multiply(erf.add(Array::from_f32(1.0))?))
    }

    fn quick_gelu(&self) -> Result<Self> {
        wrap(self.0.multiply(ops::sigmoid(&self.affine(1.702, 0.0)?.0)?))
    }

    fn sum(&self, axis: usize) -> Result<Self> {
        wrap(self.0.sum_axis(int(axis)?, true))
    }

    fn sum_all(&self) -> Result<Self> {
        wrap(self.0.sum(false))
    }

    fn matmul(&self, other: &Self) -> Result<Self> {
        wrap(self.0.matmul(&other.0))
    }

    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        let mut shape = self.shape();
        let width = shape.pop().unwrap_or(1);
        let [out, inner] = weight.axes()?;
        if inner != width {
            return Err(misfit(format!("a matrix [{out}, {inner}] for rows of {width}")));
        }
        let rows = self.reshape(&[shape.iter().product(), width])?;
        let turned = weight.0.swap_axes(0, 1)?;
        let product = match bias {
            Some(bias) => ops::addmm(&bias.0, &rows.0, &turned, None, None)?,
            None => rows.0.matmul(&turned)?,
        };
        shape.push(out);
        wrap(product.reshape(&ints(&shape)?))
    }

    fn softmax(&self) -> Result<Self> {
        wrap(ops::softmax_axis(&self.0, -1, true))
    }

    fn log_softmax(&self) -> Result<Self> {
        wrap(self.0.subtract(self.0.logsumexp_axis(-1, true)?))
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f32) -> Result<Self> {
        wrap(fast::layer_norm(&self.0, &weight.0, &bias.0, eps))
    }

    fn rms_norm(&self, weight: &Self, eps: f32) -> Result<Self> {
        wrap(fast::rms_norm(&self.0, Some(&weight.0), eps))
    }

    fn rope(&self, offset: usize, base: f32) -> Result<Self> {
        let width = *self.shape().last().unwrap_or(&0);
        wrap(fast::rope(&self.0, int(width)?, false, base, 1.0, int(offset)?, None))
    }

    fn swiglu(&self, up: &Self) -> Result<Self> {
        wrap(self.0.multiply(ops::sigmoid(&self.0)?)?.multiply(&up.0))
    }

    fn attention(q: &Self, k: &Self, v: &Self, scope: &Scope, scale: f32) -> Result<Self> {
        let shape = attention::Shape::new(&q.shape(), &k.shape(), &v.shape(), scope, scale)
            .ok_or_else(|| misfit(format!("attention of queries {q:?}, keys {k:?}, values {v:?}")))?;
        let all = scope.lengths.iter().all(|length| *length >= shape.keys);
        let mask = match (all, scope.causal) {
            (true, false) => None,
            (true, true) => {
                return wrap(fast::scaled_dot_product_attention(
                    &q.0,
                    &k.0,
                    &v.0,
                    scale,
                    ScaledDotProductAttentionMask::Causal,
                    None,
                ));
            }
            (false, _) => {
                let mask = Array::from_slice(&shape.mask(), &ints(&[shape.rows, 1, shape.queries, shape.keys])?);
                Some(mask.as_dtype(q.0.dtype())?)
            }
        };
        let mask = mask.as_ref().map(ScaledDotProductAttentionMask::Array);
        wrap(fast::scaled_dot_product_attention(&q.0, &k.0, &v.0, scale, mask, None))
    }

    fn cross_entropy(&self, matrix: &Self, targets: &[u32]) -> Result<Self> {
        let ([rows, width], [entries, inner]) = (self.axes()?, matrix.axes()?);
        if inner != width || targets.len() != rows || targets.iter().any(|t| *t as usize >= entries) {
            let (x, w, n) = (self.shape(), matrix.shape(), targets.len());
            return Err(misfit(format!("cross-entropy of rows {x:?}, matrix {w:?}, {n} targets")));
        }
        let logits = self.linear(matrix, None)?.cast(Precision::F32)?.0;
        let targets = Array::from_slice(targets, &ints(&[rows, 1])?);
        let losses = logits.logsumexp_axis(-1, true)?.subtract(logits.take_along_axis(targets, -1)?)?;
        wrap(losses.reshape(&ints(&[rows])?))
    }

    fn depthwise(&self, weight: &Self, window: Window) -> Result<Self> {
        let [_, _, _, c] = self.axes()?;
        if weight.0.size() != window.size * window.size * c {
            let taps = weight.shape();
            return Err(misfit(format!("depth-wise taps {taps:?} for a window of {} over {c} channels", window.size)));
        }
        let taps = weight.reshape(&[window.size, window.size, c])?;
        wrap(self.windows(window)?.multiply(&taps.0)?.sum_axes(&[3, 4], false))
    }

    fn patches(&self, window: Window) -> Result<Self> {
        let [n, _, _, c] = self.axes()?;
        let shape = [n * window.out_h * window.out_w, window.size * window.size * c];
        wrap(self.windows(window)?.reshape(&ints(&shape)?))
    }

    fn scale_shift(&self, scale: &Self, shift: &Self, low: f32, high: f32) -> Result<Self> {
        self.check_channels(scale, shift)?;
        let y = self.0.multiply(&scale.0)?.add(&shift.0)?;
        wrap(ops::minimum(ops::maximum(y, Array::from_f32(low))?, Array::from_f32(high)))
    }

    fn detach(&self) -> Self {
        match mlx_rs::stop_gradient(&self.0) {
            Ok(array) => Self(array, PhantomData),
            // It notes one operation and looks at nothing: there is no way for it to fail.
            Err(_) => self.clone(),
        }
    }

    fn value_and_grad(
        params: &Params<Self>,
        loss: &mut dyn FnMut(&Params<Self>) -> Result<Self>,
    ) -> Result<(f32, Params<Self>)> {
        let arrays: Vec<Array> = params.values().map(|t| t.0.clone()).collect();
        let numbers = ints(&(0..arrays.len()).collect::<Vec<_>>())?;
        // MLX passes on a text; what went wrong is kept beside it.
        let failed = RefCell::new(None);
        let found = {
            let scalar = |arrays: &[Array]| -> std::result::Result<Vec<Array>, Exception> {
                let named = params.keys().cloned().zip(arrays.iter().map(|a| Self(a.clone(), PhantomData))).collect();
                loss(&named).and_then(|value| value.reshape(&[])).map(|value| vec![value.0]).map_err(|error| {
                    let text = error.to_string();
                    failed.replace(Some(error));
                    Exception::custom(text)
                })
            };
            value_and_grad_with_argnums(scalar, &numbers[..])(&arrays)
        };
        let (values, grads) = found.map_err(|e| failed.take().unwrap_or_else(|| e.into()))?;
        eval(values.iter().chain(&grads))?;
        let value = values[0].try_item_cast::<f32>().map_err(|e| misfit(e.to_string()))?;
        Ok((value, params.keys().cloned().zip(grads.into_iter().map(|g| Self(g, PhantomData))).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::CandleTensor;
    use crate::qmatrix::Groups;
    use crate::rng::Rng;

    /// Shapes by name; `f` is run on both backends, whose values and gradients are to agree.
    fn agree(
        name: &str,
        shapes: &[(&str, &[usize])],
        mlx: &dyn Fn(&Params<MlxTensor>) -> Result<MlxTensor>,
        candle: &dyn Fn(&Params<CandleTensor>) -> Result<CandleTensor>,
    ) {
        let drawn = |name: &str, shape: &[usize]| -> Vec<f32> {
            let mut rng = Rng::new(5, name);
            (0..shape.iter().product()).map(|_| rng.normal()).collect()
        };
        fn params<T: Tensor>(shapes: &[(&str, &[usize])], drawn: &dyn Fn(&str, &[usize]) -> Vec<f32>) -> Params<T> {
            let tensor = |(name, shape): &(&str, &[usize])| {
                (String::from(*name), T::from_f32(&drawn(name, shape), shape).expect("fits"))
            };
            shapes.iter().map(tensor).collect()
        }
        /// The value weighed by fixed noise, so that no gradient is lost in a sum, and the gradients by it.
        fn both<T: Tensor>(
            params: &Params<T>,
            f: &dyn Fn(&Params<T>) -> Result<T>,
            drawn: &dyn Fn(&str, &[usize]) -> Vec<f32>,
        ) -> (Vec<f32>, BTreeMap<String, Vec<f32>>) {
            let value = f(params).expect("works");
            let weight = T::from_f32(&drawn("weight", &value.shape()), &value.shape()).expect("fits");
            let (_, grads) = T::value_and_grad(params, &mut |p| f(p)?.mul(&weight)?.sum_all()).expect("works");
            let grads = grads.into_iter().map(|(name, grad)| (name, grad.to_f32().expect("values"))).collect();
            (value.to_f32().expect("values"), grads)
        }
        let (ours, our_grads) = both(&params(shapes, &drawn), candle, &drawn);
        let (theirs, their_grads) = both(&params(shapes, &drawn), mlx, &drawn);
        close(name, &ours, &theirs);
        for (of, grad) in &our_grads {
            close(&format!("{name}, by {of}"), grad, &their_grads[of]);
        }
    }

    fn close(what: &str, ours: &[f32], theirs: &[f32]) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        let top = ours.iter().fold(1.0f32, |top, v| top.max(v.abs()));
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            assert!((a - b).abs() <= 2e-5 * top, "{what}, {i}: candle {a}, MLX {b}");
        }
    }

    /// The same expression on both.
    macro_rules! agree {
        ($name:literal, $shapes:expr, |$p:ident| $body:expr) => {
            agree($name, $shapes, &|$p| $body, &|$p| $body)
        };
    }

    #[test]
    fn every_operation_and_its_gradient_agree_with_candle() {
        let x: (&str, &[usize]) = ("x", &[2, 3, 8]);
        agree!("reshape, swap, narrow", &[x], |p| p["x"].reshape(&[3, 4, 4])?.swap_axes(0, 2)?.narrow(1, 1, 2));
        agree!("from the beginning", &[x], |p| p["x"].narrow(2, 0, 8)?.narrow(0, 1, 1));
        agree!("concat", &[x, ("y", &[2, 1, 8])], |p| Tensor::concat(&[p["x"].clone(), p["y"].clone()], 1));
        agree!("take rows", &[("x", &[5, 4])], |p| p["x"].take_rows(&[3, 0, 3]));
        agree!("broadcast", &[x, ("y", &[8])], |p| p["x"].add(&p["y"])?.mul(&p["y"])?.sub(&p["x"]));
        agree!("divided", &[x, ("y", &[2, 3, 8])], |p| p["x"].div(&p["y"].exp()?.affine(1.0, 1.0)?.sqrt()?.log()?));
        agree!("affine", &[x], |p| p["x"].affine(-2.5, 0.75)?.affine(3.0, 0.0));
        agree!("gelu", &[x], |p| p["x"].gelu());
        agree!("quick gelu", &[x], |p| p["x"].quick_gelu());
        agree!("sums", &[x], |p| p["x"].sum(1)?.mul(&p["x"].sum_all()?.reshape(&[1, 1, 1])?));
        agree!("matmul", &[("x", &[2, 3, 4]), ("y", &[2, 4, 5])], |p| p["x"].matmul(&p["y"]));
        agree!("linear", &[x, ("w", &[5, 8]), ("b", &[5])], |p| p["x"].linear(&p["w"], Some(&p["b"])));
        agree!("no bias", &[x, ("w", &[5, 8])], |p| p["x"].linear(&p["w"], None));
        agree!("softmax", &[x], |p| p["x"].softmax()?.add(&p["x"].log_softmax()?));
        agree!("normalize", &[x], |p| p["x"].normalize());
        agree!("layer norm", &[x, ("w", &[8]), ("b", &[8])], |p| p["x"].layer_norm(&p["w"], &p["b"], 1e-5));
        agree!("rms norm", &[x, ("w", &[8])], |p| p["x"].rms_norm(&p["w"], 1e-5));
        agree!("rope", &[("x", &[2, 2, 5, 8])], |p| p["x"].rope(11, 10_000.0));
        agree!("swiglu", &[x, ("y", &[2, 3, 8])], |p| p["x"].swiglu(&p["y"]));
        agree!("detach", &[x], |p| p["x"].detach().mul(&p["x"]));
    }

    #[test]
    fn attention_agrees_whatever_is_seen() {
        let shapes: [(&str, &[usize]); 3] = [("q", &[2, 4, 3, 8]), ("k", &[2, 2, 5, 8]), ("v", &[2, 2, 5, 8])];
        for (lengths, causal) in [(vec![5, 5], false), (vec![5, 5], true), (vec![5, 3], false), (vec![4, 5], true)] {
            let scope = Scope { lengths: lengths.into(), causal };
            agree!("attention", &shapes, |p| Tensor::attention(&p["q"], &p["k"], &p["v"], &scope, 0.3));
        }
    }

    #[test]
    fn convolutions_agree() {
        for (size, stride) in [(3, 1), (3, 2), (5, 2)] {
            let window = Window::same(7, 7, size, stride);
            agree!("depth-wise", &[("x", &[2, 7, 7, 4]), ("k", &[size, size, 4])], |p| p["x"]
                .depthwise(&p["k"], window));
            agree!("patches", &[("y", &[4])], |p| {
                let x: Vec<f32> = (0..2 * 7 * 7 * 4).map(|i| (i as f32 * 0.37).sin()).collect();
                let pictures = p["y"].reshape(&[1, 1, 1, 4])?.detach().affine(0.0, 0.0)?;
                let patches = pictures.add(&Tensor::from_f32(&x, &[2, 7, 7, 4])?)?.patches(window)?;
                let width = patches.shape()[1];
                patches.reshape(&[patches.shape()[0] * width / 4, 4])?.mul(&p["y"])
            });
        }
        agree!("scale and shift", &[("x", &[5, 6])], |p| {
            let of = |v: &[f32]| Tensor::from_f32(v, &[6]);
            let (scale, shift) = (of(&[1.0, -2.0, 0.5, 1.5, 1.0, 2.0])?, of(&[0.1, 0.0, 1.0, -0.5, 3.0, 0.2])?);
            p["x"].scale_shift(&scale, &shift, 0.0, 6.0)
        });
    }

    #[test]
    fn texts_in_one_row_agree() {
        let shapes: [(&str, &[usize]); 3] = [("q", &[1, 4, 7, 8]), ("k", &[1, 2, 7, 8]), ("v", &[1, 2, 7, 8])];
        agree!("attention of packed texts", &shapes, |p| {
            let turned = |name: &str| p[name].rope_packed(&[3, 4], 10_000.0);
            Tensor::attention_packed(&turned("q")?, &turned("k")?, &p["v"], &[3, 4], 0.3)
        });
    }

    #[test]
    fn quantized_matrices_agree() {
        let codes: Vec<u8> = (0..5 * 64).map(|i| (i * 7 % 16) as u8).collect();
        let scales = |by: f32| (0..10).map(|i| by * (i as f32 - 4.0)).collect();
        let matrix = std::sync::Arc::new(Groups::new(5, 64, 32, 4, &codes, scales(0.1), scales(0.3)).into());
        agree!("linear by codes", &[("x", &[9, 64])], |p| p["x"].linear_quantized(&matrix));
    }

    #[test]
    fn cross_entropy_agrees() {
        let matrix: Vec<f32> = (0..7 * 4).map(|i| (i as f32 * 0.73).cos()).collect();
        agree!("cross-entropy", &[("x", &[3, 4])], |p| {
            p["x"].cross_entropy(&Tensor::from_f32(&matrix, &[7, 4])?, &[6, 0, 2])
        });
        agree!("a trained vocabulary", &[("x", &[3, 4]), ("m", &[7, 4])], |p| {
            p["x"].cross_entropy(&p["m"], &[6, 0, 2])
        });
    }

    #[test]
    fn a_cast_rounds_and_its_gradient_is_cast_back() {
        let params = Params::from([("x".to_owned(), MlxTensor::from_f32(&[1.003, -3.0, 1e30], &[3]).expect("fits"))]);
        let lower = params["x"].cast(Precision::Bf16).expect("MLX has it");
        assert_eq!(lower.0.dtype(), Dtype::Bfloat16);
        let rounded = [1.003, -3.0, 1e30].map(|v| half::bf16::from_f32(v).to_f32());
        assert_eq!(lower.to_f32().expect("values"), rounded);
        assert_eq!(lower.settled().expect("computes").0.dtype(), Dtype::Bfloat16);
        let weight = MlxTensor::from_f32(&[0.7, 2.0, -1.0], &[3]).expect("fits");
        let (value, grads) = MlxTensor::value_and_grad(&params, &mut |p| {
            p["x"].cast(Precision::Bf16)?.cast(Precision::F32)?.mul(&weight)?.sum_all()
        })
        .expect("works");
        assert_eq!((value, grads["x"].0.dtype()), (0.7 * rounded[0] - 6.0 - rounded[2], Dtype::Float32));
        let through = [half::bf16::from_f32(0.7).to_f32(), 2.0, -1.0];
        assert_eq!(grads["x"].to_f32().expect("values"), through);
        let in_lower = MlxTensor::value_and_grad(&params, &mut |p| p["x"].cast(Precision::Bf16)?.sum_all());
        assert!(in_lower.expect("a value of any precision").0.is_finite());
    }

    /// An operation of a language model in lower precision: what it gives and its gradients are near those in 32 bits, and it
    /// gives what it was given.
    fn lower(name: &str, shapes: &[(&str, &[usize])], f: &dyn Fn(&Params<MlxTensor>) -> Result<MlxTensor>) {
        let drawn = |name: &str, shape: &[usize]| {
            let mut rng = Rng::new(5, name);
            let values: Vec<f32> =
                (0..shape.iter().product()).map(|_| half::bf16::from_f32(rng.normal()).to_f32()).collect();
            MlxTensor::from_f32(&values, shape).expect("fits")
        };
        let params: Params<MlxTensor> = shapes.iter().map(|(n, s)| ((*n).to_owned(), drawn(n, s))).collect();
        let weight = drawn("weight", &f(&params).expect("works").shape());
        let both = |precision: Precision| {
            let run = |p: &Params<MlxTensor>| {
                let cast = p.iter().map(|(n, t)| Ok((n.clone(), t.cast(precision)?)));
                f(&cast.collect::<Result<_>>()?)
            };
            let value = run(&params).expect("works");
            let (_, grads) =
                MlxTensor::value_and_grad(&params, &mut |p| run(p)?.mul(&weight)?.sum_all()).expect("works");
            let of = |t: &MlxTensor| t.to_f32().expect("values");
            (value.0.dtype(), of(&value), grads.iter().map(|(n, g)| (n.clone(), of(g))).collect::<BTreeMap<_, _>>())
        };
        let ((_, ours, our_grads), (dtype, theirs, their_grads)) = (both(Precision::F32), both(Precision::Bf16));
        let wanted = if name == "cross-entropy" { Dtype::Float32 } else { Dtype::Bfloat16 };
        assert_eq!(dtype, wanted, "{name}");
        let near = |what: &str, ours: &[f32], theirs: &[f32]| {
            let top = ours.iter().fold(0.0f32, |top, v| top.max(v.abs()));
            let far = ours.iter().zip(theirs).fold(0.0f32, |far, (a, b)| far.max((a - b).abs()));
            assert!(far <= 0.02 * top && theirs.iter().all(|v| v.is_finite()), "{name}, {what}: {far} of {top} off");
        };
        near("values", &ours, &theirs);
        for (of, grad) in &our_grads {
            near(of, grad, &their_grads[of]);
        }
    }

    #[test]
    fn what_a_language_model_computes_with_is_near_in_lower_precision() {
        let x: (&str, &[usize]) = ("x", &[2, 3, 8]);
        lower("take rows", &[("x", &[5, 4])], &|p| p["x"].take_rows(&[3, 0, 3]));
        lower("reshape, swap, narrow", &[x], &|p| p["x"].reshape(&[3, 4, 4])?.swap_axes(0, 2)?.narrow(1, 1, 2));
        lower("concat", &[x, ("y", &[2, 1, 8])], &|p| Tensor::concat(&[p["x"].clone(), p["y"].clone()], 1));
        lower("add, sub, mul", &[x, ("y", &[8])], &|p| p["x"].add(&p["y"])?.mul(&p["y"])?.sub(&p["x"]));
        lower("affine", &[x], &|p| p["x"].affine(1.0 / 3.0, 0.7));
        lower("linear", &[x, ("w", &[5, 8])], &|p| p["x"].linear(&p["w"], None));
        lower("rms norm", &[x, ("w", &[8])], &|p| p["x"].rms_norm(&p["w"], 1e-5));
        // Positions that lower precision does not count to.
        lower("rope", &[("x", &[2, 2, 5, 8])], &|p| p["x"].rope(1001, 10_000.0));
        lower("swiglu", &[x, ("y", &[2, 3, 8])], &|p| p["x"].swiglu(&p["y"]));
        lower("cross-entropy", &[("x", &[3, 4]), ("m", &[7, 4])], &|p| p["x"].cross_entropy(&p["m"], &[6, 0, 2]));
        lower("detach", &[x], &|p| p["x"].detach().mul(&p["x"]));
        let shapes: [(&str, &[usize]); 3] = [("q", &[2, 4, 5, 8]), ("k", &[2, 2, 5, 8]), ("v", &[2, 2, 5, 8])];
        for lengths in [vec![5, 5], vec![5, 3]] {
            let scope = Scope { lengths: lengths.into(), causal: true };
            lower("attention", &shapes, &|p| Tensor::attention(&p["q"], &p["k"], &p["v"], &scope, 0.3));
        }
        let shapes: [(&str, &[usize]); 3] = [("q", &[1, 4, 7, 8]), ("k", &[1, 2, 7, 8]), ("v", &[1, 2, 7, 8])];
        lower("attention of packed texts", &shapes, &|p| {
            let turned = |name: &str| p[name].rope_packed(&[3, 4], 10_000.0);
            Tensor::attention_packed(&turned("q")?, &turned("k")?, &p["v"], &[3, 4], 0.3)
        });
    }

    #[test]
    fn what_does_not_fit_is_said_and_not_read() {
        let x = MlxTensor::from_f32(&[1.0; 6], &[2, 3]).expect("fits");
        let told = |result: Result<MlxTensor>| result.expect_err("refused").to_string();
        assert_eq!(told(MlxTensor::from_f32(&[1.0], &[2])), "1 values for a tensor [2]");
        assert_eq!(told(x.take_rows(&[2])), "row 2 of 2");
        assert_eq!(told(x.narrow(1, 2, 2)), "entries 2 to 4 of an axis of 3");
        assert_eq!(told(x.linear(&x.swap_axes(0, 1).expect("turned"), None)), "a matrix [3, 2] for rows of 3");
        assert!(told(x.matmul(&x)).contains("(2,3)"), "{}", told(x.matmul(&x)));
        let params = Params::from([("x".to_owned(), x.clone())]);
        let failed = MlxTensor::value_and_grad(&params, &mut |p| p["x"].take_rows(&[9])).expect_err("refused");
        assert_eq!(failed.to_string(), "row 9 of 2");
    }
}
