//! candle behind the tensor interface: its only user, with `gguf`, which takes its file reader.
//!
//! candle's fused softmax and norms have no backward and drop gradients without a word, so the fused
//! operations here are our own kernels, each with its backward.

mod fused;

use candle_core::{Device, Var};

use fused::{Fused, Shaped, Slice, arity, like, one, with_values};

use super::attention::{self, Scope};
use super::cross_entropy::{cross_entropy, cross_entropy_grads};
use super::gemm::{self, Then, View};
use super::kernels::{self, Window};
use super::packed::Packed;
use super::qmatrix::QMatrix;
use super::{Backend, BackendError, Params, Precision, Result, Tensor};

/// A tensor of candle's on the CPU.
#[derive(Clone, Debug)]
pub struct CandleTensor(candle_core::Tensor);

impl From<candle_core::Error> for BackendError {
    fn from(error: candle_core::Error) -> Self {
        // candle's errors end in a backtrace; the first line says it.
        BackendError::Library(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

fn wrap(result: candle_core::Result<candle_core::Tensor>) -> Result<CandleTensor> {
    Ok(CandleTensor(result?))
}

impl Tensor for CandleTensor {
    fn from_f32(values: &[f32], shape: &[usize]) -> Result<Self> {
        wrap(candle_core::Tensor::from_slice(values, shape, &Device::Cpu))
    }

    fn to_f32(&self) -> Result<Vec<f32>> {
        // candle looks for the first of none where it lies.
        Ok(if self.0.elem_count() == 0 { Vec::new() } else { self.0.flatten_all()?.to_vec1()? })
    }

    fn cast(&self, precision: Precision) -> Result<Self> {
        match Backend::Candle.has(precision) {
            true => Ok(self.clone()),
            false => Err(BackendError::Library(format!("candle does not compute in {}", precision.name()))),
        }
    }

    fn settled(&self) -> Result<Self> {
        Ok(self.detach())
    }

    fn shape(&self) -> Vec<usize> {
        self.0.dims().to_vec()
    }

    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        wrap(self.0.reshape(shape))
    }

    fn swap_axes(&self, a: usize, b: usize) -> Result<Self> {
        wrap(self.0.transpose(a, b))
    }

    fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        wrap(self.0.narrow(axis, start, len))
    }

    fn concat(parts: &[Self], axis: usize) -> Result<Self> {
        let parts: Vec<&candle_core::Tensor> = parts.iter().map(|t| &t.0).collect();
        wrap(candle_core::Tensor::cat(&parts, axis))
    }

    fn take_rows(&self, ids: &[u32]) -> Result<Self> {
        let ids = candle_core::Tensor::from_slice(ids, ids.len(), &Device::Cpu)?;
        wrap(self.0.contiguous()?.index_select(&ids, 0))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        if self.0.dims() != other.0.dims() {
            return wrap(self.0.broadcast_add(&other.0));
        }
        // The library's own sum waits in a spin for its threads, which starves them on a busy machine.
        let op = Fused::new(
            "add",
            |a| kernels::add(a[0].0, a[1].0),
            |_, _, grad| Ok([Some(grad.clone()), Some(grad.clone()), None]),
        );
        wrap(self.0.contiguous()?.apply_op2(&other.0.contiguous()?, op))
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        wrap(self.0.broadcast_sub(&other.0))
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        if self.0.dims() != other.0.dims() {
            return wrap(self.0.broadcast_mul(&other.0));
        }
        let op = Fused::new(
            "mul",
            |a| kernels::multiply(a[0].0, a[1].0),
            |args, _, grad| {
                let by = |t: &candle_core::Tensor| like(grad, &[t, grad], |a| kernels::multiply(a[0], a[1]));
                let [a, b] = args else { return Err(arity("mul")) };
                // A dropout mask wants no gradient.
                let of = |t: &candle_core::Tensor, other| if t.track_op() { by(other).map(Some) } else { Ok(None) };
                Ok([of(a, b)?, of(b, a)?, None])
            },
        );
        wrap(self.0.contiguous()?.apply_op2(&other.0.contiguous()?, op))
    }

    fn div(&self, other: &Self) -> Result<Self> {
        wrap(self.0.broadcast_div(&other.0))
    }

    fn affine(&self, factor: f64, offset: f64) -> Result<Self> {
        wrap(self.0.affine(factor, offset))
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
        let op = Fused::new(
            "gelu",
            |a| kernels::gelu(a[0].0),
            |args, _, grad| one(like(grad, &[&args[0], grad], |a| kernels::gelu_grad(a[0], a[1]))),
        );
        wrap(self.0.contiguous()?.apply_op1(op))
    }

    fn quick_gelu(&self) -> Result<Self> {
        let op = Fused::new(
            "quick-gelu",
            |a| kernels::quick_gelu(a[0].0),
            |args, _, grad| one(like(grad, &[&args[0], grad], |a| kernels::quick_gelu_grad(a[0], a[1]))),
        );
        wrap(self.0.contiguous()?.apply_op1(op))
    }

    fn sum(&self, axis: usize) -> Result<Self> {
        wrap(self.0.sum_keepdim(axis))
    }

    fn sum_all(&self) -> Result<Self> {
        wrap(self.0.sum_all())
    }

    fn matmul(&self, other: &Self) -> Result<Self> {
        let (a, b) = (self.0.contiguous()?, other.0.contiguous()?);
        let (left, right) = (a.dims().to_vec(), b.dims().to_vec());
        let (Some((lead, &[m, k])), Some((same, &[inner, n]))) = (left.split_last_chunk(), right.split_last_chunk())
        else {
            return wrap(a.matmul(&b));
        };
        // The library steps over two axes at most.
        if lead.len() <= 2 || lead != same {
            return wrap(a.matmul(&b));
        }
        let count: usize = lead.iter().product();
        let made = a.reshape((count, m, k))?.matmul(&b.reshape((count, inner, n))?)?;
        wrap(made.reshape([lead, &[m, n]].concat()))
    }

    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        let (x, w, shape) = self.as_product(weight)?;
        let op = Shaped { shape: vec![x.dim(0)?, w.dim(0)?], op: linear_op() };
        let out = match bias {
            Some(bias) => x.apply_op3(&w, &bias.0.contiguous()?, op)?,
            None => x.apply_op2(&w, op)?,
        };
        wrap(out.reshape(shape))
    }

    fn linear_quantized(&self, weight: &std::sync::Arc<QMatrix>) -> Result<Self> {
        let mut shape = self.0.dims().to_vec();
        let width = shape.pop().unwrap_or(1);
        let (out, inner) = (weight.rows(), weight.inner());
        if width != inner {
            return Err(BackendError::Library(format!("a matrix [{out}, {inner}] for rows of {width}")));
        }
        let rows: usize = shape.iter().product();
        shape.push(out);
        let (forward, backward) = (weight.clone(), weight.clone());
        let op = Fused::new(
            "linear-quantized",
            move |a| forward.product(a[0].0, Then::Nothing),
            move |args, _, grad| one(like(&args[0], &[grad], |a| backward.product_back(a[0]))),
        );
        let x = self.0.reshape((rows, width))?.contiguous()?;
        wrap(x.apply_op1(Shaped { shape: vec![rows, out], op })?.reshape(shape))
    }

    fn linear_scale_shift(&self, weight: &Self, scale: &Self, shift: &Self, low: f32, high: f32) -> Result<Self> {
        if [self, weight, scale, shift].iter().any(|t| t.0.track_op()) {
            return self.linear(weight, None)?.scale_shift(scale, shift, low, high);
        }
        let (x, w, shape) = self.as_product(weight)?;
        let (rows, inner, columns) = (x.dim(0)?, x.dim(1)?, w.dim(0)?);
        let values = with_values(&[&x, &w, &scale.0, &shift.0], |a| {
            let then = Then::ScaleShift(a[2], a[3], low, high);
            gemm::matmul(View::new(a[0], rows, inner), View::new(a[1], columns, inner).transposed(), then)
        })?;
        wrap(candle_core::Tensor::from_vec(values, shape, &Device::Cpu))
    }

    fn softmax(&self) -> Result<Self> {
        let width = (*self.0.dims().last().unwrap_or(&1)).max(1);
        let op = Fused::new(
            "softmax",
            move |a| kernels::softmax(a[0].0, width),
            move |_, result, grad| one(like(grad, &[result, grad], |a| kernels::softmax_grad(a[0], a[1], width))),
        );
        wrap(self.0.contiguous()?.apply_op1(op))
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f32) -> Result<Self> {
        let op = Fused::new(
            "layer-norm",
            move |a| kernels::layer_norm(a[0].0, a[1].0, a[2].0, eps),
            move |args, _, grad| {
                let [x, weight, bias] = args else { return Err(arity("layer-norm")) };
                let of_x = if x.track_op() {
                    Some(like(grad, &[x, weight, grad], |a| kernels::layer_norm_grad(a[0], a[1], a[2], eps))?)
                } else {
                    None
                };
                if !weight.track_op() && !bias.track_op() {
                    return Ok([of_x, None, None]);
                }
                let (by_weight, by_bias) = with_values(&[x, grad], |a| {
                    kernels::layer_norm_weight_grads(a[0], weight.elem_count(), a[1], eps)
                })?;
                let tensor = |v, t: &candle_core::Tensor| candle_core::Tensor::from_vec(v, t.dims(), &Device::Cpu);
                Ok([of_x, Some(tensor(by_weight, weight)?), Some(tensor(by_bias, bias)?)])
            },
        );
        wrap(self.0.contiguous()?.apply_op3(&weight.0.contiguous()?, &bias.0.contiguous()?, op))
    }

    fn rms_norm(&self, weight: &Self, eps: f32) -> Result<Self> {
        let op = Fused::new(
            "rms-norm",
            move |a| kernels::rms_norm(a[0].0, a[1].0, eps),
            move |args, _, grad| {
                let [x, weight] = args else { return Err(arity("rms-norm")) };
                let mut grads = [None, None, None];
                if x.track_op() {
                    grads[0] = Some(like(grad, &[x, weight, grad], |a| kernels::rms_norm_grad(a[0], a[1], a[2], eps))?);
                }
                if weight.track_op() {
                    let width = weight.elem_count();
                    grads[1] =
                        Some(like(weight, &[x, grad], |a| kernels::rms_norm_weight_grad(a[0], width, a[1], eps))?);
                }
                Ok(grads)
            },
        );
        wrap(self.0.contiguous()?.apply_op2(&weight.0.contiguous()?, op))
    }

    fn rope(&self, offset: usize, base: f32) -> Result<Self> {
        let dims = self.0.dims();
        let [.., length, width] = *dims else {
            return Err(BackendError::Library(format!("positions of a tensor {dims:?}")));
        };
        let op = Fused::new(
            "rope",
            move |a| kernels::rope(a[0].0, length, width, offset, base, false),
            move |_, _, grad| one(like(grad, &[grad], |a| kernels::rope(a[0], length, width, offset, base, true))),
        );
        wrap(self.0.contiguous()?.apply_op1(op))
    }

    fn swiglu(&self, up: &Self) -> Result<Self> {
        let op = Fused::new(
            "swiglu",
            |a| kernels::swiglu(a[0].0, a[1].0),
            |args, _, grad| {
                let [by_gate, by_up] =
                    with_values(&[&args[0], &args[1], grad], |a| kernels::swiglu_grad(a[0], a[1], a[2]))?;
                let tensor = |v| candle_core::Tensor::from_vec(v, grad.dims(), &Device::Cpu);
                Ok([Some(tensor(by_gate)?), Some(tensor(by_up)?), None])
            },
        );
        wrap(self.0.contiguous()?.apply_op2(&up.0.contiguous()?, op))
    }

    fn attention(q: &Self, k: &Self, v: &Self, scope: &Scope, scale: f32) -> Result<Self> {
        let shape = attention::Shape::new(q.0.dims(), k.0.dims(), v.0.dims(), scope, scale).ok_or_else(|| {
            let (q, k, v) = (q.0.dims(), k.0.dims(), v.0.dims());
            BackendError::Library(format!("attention of queries {q:?}, keys {k:?}, values {v:?}"))
        })?;
        let again = shape.clone();
        let op = Fused::new(
            "attention",
            move |a| attention::attention(a[0].0, a[1].0, a[2].0, &shape),
            move |args, _, grad| {
                let [q, k, v] = args else { return Err(arity("attention")) };
                let [by_q, by_k, by_v] =
                    with_values(&[q, k, v, grad], |a| attention::attention_grad(a[0], a[1], a[2], a[3], &again))?;
                let tensor = |v, t: &candle_core::Tensor| candle_core::Tensor::from_vec(v, t.dims(), &Device::Cpu);
                Ok([Some(tensor(by_q, q)?), Some(tensor(by_k, k)?), Some(tensor(by_v, v)?)])
            },
        );
        wrap(q.0.contiguous()?.apply_op3(&k.0.contiguous()?, &v.0.contiguous()?, op))
    }

    fn rope_packed(&self, lengths: &[usize], base: f32) -> Result<Self> {
        let (tokens, width) = self.0.dims().split_last_chunk::<2>().map_or((0, 0), |(_, last)| (last[0], last[1]));
        check_packed(lengths, tokens)?;
        let packed = Packed { lengths: lengths.to_vec(), width };
        let again = packed.clone();
        let op = Fused::new(
            "rope-packed",
            move |a| packed.rope(a[0].0, base, false),
            move |_, _, grad| one(like(grad, &[grad], |a| again.rope(a[0], base, true))),
        );
        wrap(self.0.contiguous()?.apply_op1(op))
    }

    fn attention_packed(q: &Self, k: &Self, v: &Self, lengths: &[usize], scale: f32) -> Result<Self> {
        let (rows, heads, tokens, width) = q.0.dims4()?;
        let kv_heads = k.0.dim(1)?;
        check_packed(lengths, tokens)?;
        if rows != 1 || k.0.dims() != [1, kv_heads, tokens, width] || k.0.dims() != v.0.dims() {
            let (q, k, v) = (q.0.dims(), k.0.dims(), v.0.dims());
            return Err(BackendError::Library(format!("attention of queries {q:?}, keys {k:?}, values {v:?}")));
        }
        let packed = Packed { lengths: lengths.to_vec(), width };
        let again = packed.clone();
        let heads = [heads, kv_heads];
        let op = Fused::new(
            "attention-packed",
            move |a| packed.attention([a[0].0, a[1].0, a[2].0], heads, scale),
            move |args, _, grad| {
                let [q, k, v] = args else { return Err(arity("attention-packed")) };
                let grads =
                    with_values(&[q, k, v, grad], |a| again.attention_grad([a[0], a[1], a[2], a[3]], heads, scale))?;
                let [by_q, by_k, by_v] = grads;
                let tensor = |v, t: &candle_core::Tensor| candle_core::Tensor::from_vec(v, t.dims(), &Device::Cpu);
                Ok([Some(tensor(by_q, q)?), Some(tensor(by_k, k)?), Some(tensor(by_v, v)?)])
            },
        );
        wrap(q.0.contiguous()?.apply_op3(&k.0.contiguous()?, &v.0.contiguous()?, op))
    }

    fn cross_entropy(&self, matrix: &Self, targets: &[u32]) -> Result<Self> {
        let ((rows, width), (entries, inner)) = (self.0.dims2()?, matrix.0.dims2()?);
        if inner != width || targets.len() != rows || targets.iter().any(|t| *t as usize >= entries) {
            let (x, w, n) = (self.0.dims(), matrix.0.dims(), targets.len());
            return Err(BackendError::Library(format!("cross-entropy of rows {x:?}, matrix {w:?}, {n} targets")));
        }
        if matrix.0.track_op() {
            let (again, targets) = (targets.to_vec(), targets.to_vec());
            let op = Fused::new(
                "cross-entropy",
                move |a| cross_entropy(a[0].0, a[1].0, width, &targets, false).losses,
                move |args, _, grad| {
                    let (by_rows, by_matrix) = with_values(&[&args[0], &args[1], grad], |a| {
                        cross_entropy_grads(a[0], a[1], width, &again, a[2])
                    })?;
                    let tensor = |v, t: &candle_core::Tensor| candle_core::Tensor::from_vec(v, t.dims(), &Device::Cpu);
                    Ok([Some(tensor(by_rows, &args[0])?), Some(tensor(by_matrix, &args[1])?), None])
                },
            );
            let op = Shaped { shape: vec![rows], op };
            return wrap(self.0.contiguous()?.apply_op2(&matrix.0.contiguous()?, op));
        }
        let wants_grads = self.0.track_op();
        // The gradient is at hand while the logits are: it is kept for when it is asked for.
        let kept = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let (keep, targets) = (kept.clone(), targets.to_vec());
        let op = Fused::new(
            "cross-entropy",
            move |a| {
                let found = cross_entropy(a[0].0, a[1].0, width, &targets, wants_grads);
                *keep.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = found.grads;
                found.losses
            },
            move |args, _, grad| {
                let mut unit = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let mut by_row = std::mem::take(&mut *unit);
                with_values(&[grad], |a| {
                    by_row.chunks_exact_mut(width).zip(a[0]).for_each(|(row, g)| row.iter_mut().for_each(|v| *v *= g));
                })?;
                one(candle_core::Tensor::from_vec(by_row, args[0].dims(), &Device::Cpu))
            },
        );
        let op = Shaped { shape: vec![rows], op };
        wrap(self.0.contiguous()?.apply_op2(&matrix.0.contiguous()?, op))
    }

    fn depthwise(&self, weight: &Self, window: Window) -> Result<Self> {
        let (n, h, w, c) = self.0.dims4()?;
        let shape = [n, h, w, c];
        check_taps(weight, window, c)?;
        let op = Fused::new(
            "depthwise",
            move |a| kernels::depthwise(a[0].0, a[1].0, shape, window),
            move |args, _, grad| {
                let [x, weight] = args else { return Err(arity("depthwise")) };
                let mut grads = [None, None, None];
                if x.track_op() {
                    let by_x = with_values(&[grad, weight], |a| kernels::depthwise_grad(a[0], a[1], shape, window))?;
                    grads[0] = Some(candle_core::Tensor::from_vec(by_x, &shape, &Device::Cpu)?);
                }
                if weight.track_op() {
                    let by_weight =
                        with_values(&[x, grad], |a| kernels::depthwise_weight_grad(a[0], a[1], shape, window))?;
                    grads[1] = Some(candle_core::Tensor::from_vec(by_weight, weight.dims(), &Device::Cpu)?);
                }
                Ok(grads)
            },
        );
        let op = Shaped { shape: vec![n, window.out_h, window.out_w, c], op };
        wrap(self.0.contiguous()?.apply_op2(&weight.0.contiguous()?, op))
    }

    fn depthwise_scale_shift(
        &self,
        weight: &Self,
        window: Window,
        scale: &Self,
        shift: &Self,
        low: f32,
        high: f32,
    ) -> Result<Self> {
        if [self, weight, scale, shift].iter().any(|t| t.0.track_op()) {
            return self.depthwise(weight, window)?.scale_shift(scale, shift, low, high);
        }
        let (n, h, w, c) = self.0.dims4()?;
        check_taps(weight, window, c)?;
        let values = with_values(&[&self.0, &weight.0, &scale.0, &shift.0], |a| {
            kernels::depthwise_then(a[0], a[1], [n, h, w, c], window, Some((a[2], a[3], low, high)))
        })?;
        wrap(candle_core::Tensor::from_vec(values, &[n, window.out_h, window.out_w, c], &Device::Cpu))
    }

    fn patches(&self, window: Window) -> Result<Self> {
        if self.0.track_op() {
            return Err(BackendError::Library("patches have no gradient: cut the input off first".into()));
        }
        let (n, h, w, c) = self.0.dims4()?;
        let values = with_values(&[&self.0], |a| kernels::patches(a[0], [n, h, w, c], window))?;
        let shape = [n * window.out_h * window.out_w, window.size * window.size * c];
        wrap(candle_core::Tensor::from_vec(values, &shape, &Device::Cpu))
    }

    fn scale_shift(&self, scale: &Self, shift: &Self, low: f32, high: f32) -> Result<Self> {
        if scale.0.track_op() || shift.0.track_op() {
            return Err(BackendError::Library("a folded norm's scale and shift have no gradient".into()));
        }
        let width = *self.0.dims().last().unwrap_or(&1);
        if scale.0.elem_count() != width || shift.0.elem_count() != width {
            return Err(BackendError::Library(format!("a scale of {} for {width} channels", scale.0.elem_count())));
        }
        let op = Fused::new(
            "scale-shift",
            move |a| kernels::scale_shift(a[0].0, a[1].0, a[2].0, low, high),
            move |args, result, grad| {
                one(like(grad, &[result, grad, &args[1]], |a| kernels::scale_shift_grad(a[0], a[1], a[2], low, high)))
            },
        );
        wrap(self.0.contiguous()?.apply_op3(&scale.0, &shift.0, op))
    }

    fn detach(&self) -> Self {
        Self(self.0.detach())
    }

    fn value_and_grad(
        params: &Params<Self>,
        loss: &mut dyn FnMut(&Params<Self>) -> Result<Self>,
    ) -> Result<(f32, Params<Self>)> {
        let vars = params
            .iter()
            .map(|(name, t)| Ok((name.clone(), Var::from_tensor(&t.0)?)))
            .collect::<Result<Vec<(String, Var)>>>()?;
        let tracked = vars.iter().map(|(n, v)| (n.clone(), Self(v.as_tensor().clone()))).collect();
        let value = loss(&tracked)?;
        let mut store = value.0.backward()?;
        let mut grads = Params::new();
        for (name, var) in vars {
            let grad = store.remove(&var).ok_or_else(|| BackendError::NoGradient(name.clone()))?;
            grads.insert(name, Self(grad));
        }
        Ok((value.scalar()?, grads))
    }
}

impl CandleTensor {
    /// x as [rows, in], weight as [out, in], and the product's shape [.., out].
    fn as_product(&self, weight: &Self) -> Result<(candle_core::Tensor, candle_core::Tensor, Vec<usize>)> {
        let mut shape = self.0.dims().to_vec();
        let width = shape.pop().unwrap_or(1);
        let (out, inner) = weight.0.dims2()?;
        if inner != width {
            return Err(BackendError::Library(format!("a matrix [{out}, {inner}] for rows of {width}")));
        }
        let rows: usize = shape.iter().product();
        shape.push(out);
        Ok((self.0.reshape((rows, width))?.contiguous()?, weight.0.contiguous()?, shape))
    }
}

/// `x w^T + bias`, with a gradient for just those that want one: a frozen weight costs nothing.
fn linear_op() -> Fused {
    let product = |a: &[Slice<'_>]| {
        let ((x, xs), (w, ws)) = (a[0], a[1]);
        let then = a.get(2).map_or(Then::Nothing, |bias| Then::Bias(bias.0));
        gemm::matmul(View::new(x, xs[0], xs[1]), View::new(w, ws[0], ws[1]).transposed(), then)
    };
    Fused::new("linear", product, |args, _, grad| {
        let (x, w) = (&args[0], &args[1]);
        let (rows, inner) = x.dims2()?;
        let out = w.dim(0)?;
        let by_x = |a: &[&[f32]]| gemm::matmul(View::new(a[0], rows, out), View::new(a[1], out, inner), Then::Nothing);
        let by_w = |a: &[&[f32]]| {
            gemm::matmul(View::new(a[0], rows, out).transposed(), View::new(a[1], rows, inner), Then::Nothing)
        };
        let mut grads = [None, None, None];
        if x.track_op() {
            grads[0] = Some(like(x, &[grad, w], by_x)?);
        }
        if w.track_op() {
            grads[1] = Some(like(w, &[grad, x], by_w)?);
        }
        if let Some(bias) = args.get(2).filter(|b| b.track_op()) {
            let sums = |a: &[&[f32]]| {
                let mut sums = vec![0.0; out];
                a[0].chunks_exact(out).for_each(|row| sums.iter_mut().zip(row).for_each(|(s, g)| *s += g));
                sums
            };
            grads[2] = Some(like(bias, &[grad], sums)?);
        }
        Ok(grads)
    })
}

fn check_packed(lengths: &[usize], tokens: usize) -> Result<()> {
    if lengths.iter().sum::<usize>() == tokens && !lengths.contains(&0) {
        return Ok(());
    }
    Err(BackendError::Library(format!("texts of {lengths:?} in {tokens} tokens")))
}

fn check_taps(weight: &CandleTensor, window: Window, channels: usize) -> Result<()> {
    if weight.0.elem_count() == window.size * window.size * channels {
        return Ok(());
    }
    Err(BackendError::Library(format!(
        "depth-wise taps {:?} for a window of {} over {channels} channels",
        weight.0.dims(),
        window.size
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn random(shape: &[usize], name: &str) -> CandleTensor {
        let mut rng = Rng::new(3, name);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
        CandleTensor::from_f32(&values, shape).expect("fits")
    }

    #[test]
    fn gradients_pass_through_every_fused_operation() {
        let x = Params::from([("x".to_owned(), random(&[2, 4, 4, 6], "x"))]);
        let (w, b, k) = (random(&[6], "w"), random(&[6], "b"), random(&[3, 3, 6], "k"));
        let mut x = x;
        for (name, shape) in [("taps", vec![3, 3, 6]), ("gain", vec![6]), ("offset", vec![6]), ("matrix", vec![6, 6])] {
            x.insert(name.to_owned(), random(&shape, name));
        }
        let plain = |p: &Params<CandleTensor>| {
            let y = p["x"].depthwise(&p["taps"], Window::same(4, 4, 3, 1))?.linear(&p["matrix"], Some(&p["offset"]))?;
            y.layer_norm(&p["gain"], &p["offset"], 1e-5)?.gelu()?.add(&p["x"])?.mul(&random(&[6], "m"))?.sum_all()
        };
        let (_, grads) = CandleTensor::value_and_grad(&x, &mut |p| plain(p)).expect("works");
        for (name, grad) in &grads {
            let grad = grad.to_f32().expect("values");
            for i in (0..grad.len()).step_by(5) {
                let at = |delta: f32| {
                    let mut moved = x.clone();
                    let mut values = x[name].to_f32().expect("values");
                    values[i] += delta;
                    moved.insert(name.clone(), CandleTensor::from_f32(&values, &x[name].shape()).expect("fits"));
                    f64::from(plain(&moved).expect("works").scalar().expect("a scalar"))
                };
                let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (numeric - f64::from(grad[i])).abs() < 3e-2 * (1.0 + numeric.abs()),
                    "{name} {i}: {numeric} {}",
                    grad[i]
                );
            }
        }
        let (value, grads) =
            CandleTensor::value_and_grad(&Params::from([("x".to_owned(), x["x"].clone())]), &mut |p| {
                let y = p["x"].depthwise(&k, Window::same(4, 4, 3, 1))?.scale_shift(&w, &b, 0.0, 6.0)?;
                y.layer_norm(&w, &b, 1e-5)?.gelu()?.softmax()?.log_softmax()?.mul(&random(&[6], "m"))?.sum_all()
            })
            .expect("works");
        assert!(value.is_finite());
        assert!(grads["x"].to_f32().expect("values").iter().any(|g| g.abs() > 1e-9));
    }

    #[test]
    fn packed_texts_are_computed_as_if_each_stood_alone() {
        let lengths = [3, 1, 4];
        let all =
            Params::from_iter([("q", 4), ("k", 2), ("v", 2)].map(|(n, h)| (n.to_owned(), random(&[1, h, 8, 6], n))));
        let counts = random(&[1, 4, 8, 6], "g");
        let together = CandleTensor::value_and_grad(&all, &mut |p| {
            let (q, k) = (p["q"].rope_packed(&lengths, 100.0)?, p["k"].rope_packed(&lengths, 100.0)?);
            CandleTensor::attention_packed(&q, &k, &p["v"], &lengths, 0.4)?.mul(&counts)?.sum_all()
        });
        let alone = CandleTensor::value_and_grad(&all, &mut |p| {
            let mut outs = Vec::new();
            for (start, len) in crate::segments(&lengths) {
                let part = |name: &str| p[name].narrow(2, start, len);
                let scope = Scope { lengths: vec![len].into(), causal: true };
                let (q, k) = (part("q")?.rope(0, 100.0)?, part("k")?.rope(0, 100.0)?);
                outs.push(CandleTensor::attention(&q, &k, &part("v")?, &scope, 0.4)?);
            }
            CandleTensor::concat(&outs, 2)?.mul(&counts)?.sum_all()
        });
        let (together, alone) = (together.expect("computes"), alone.expect("computes"));
        assert_eq!(together.0, alone.0);
        for (name, grad) in &together.1 {
            let (own, other) = (grad.to_f32().expect("values"), alone.1[name].to_f32().expect("values"));
            assert!(own.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-6), "{name}");
        }
    }

    #[test]
    fn one_thread_and_three_give_the_same_gradients() {
        let params = Params::from([
            ("x".to_owned(), random(&[3, 8, 8, 20], "x")),
            ("w".to_owned(), random(&[40, 20], "w")),
            ("k".to_owned(), random(&[3, 3, 20], "k")),
        ]);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let (value, grads) = CandleTensor::value_and_grad(&params, &mut |p| {
                    let y = p["x"].depthwise(&p["k"], Window::same(8, 8, 3, 2))?.linear(&p["w"], None)?.gelu()?;
                    y.mul(&y)?.softmax()?.mul(&random(&[3, 4, 4, 40], "m"))?.sum_all()
                })
                .expect("works");
                let grads: Vec<Vec<f32>> = grads.values().map(|g| g.to_f32().expect("values")).collect();
                (value, grads)
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn a_gradient_that_would_be_lost_is_an_error() {
        let params = Params::from([("s".to_owned(), random(&[4], "s"))]);
        let x = random(&[2, 4], "x");
        let error = CandleTensor::value_and_grad(&params, &mut |p| {
            x.scale_shift(&p["s"], &p["s"], 0.0, 6.0)?.add(&p["s"])?.sum_all()
        });
        assert!(error.is_err());
    }

    #[test]
    fn a_parameter_without_a_gradient_is_named() {
        let params = Params::from([("a".to_owned(), random(&[2], "a")), ("lost".to_owned(), random(&[2], "l"))]);
        let error = CandleTensor::value_and_grad(&params, &mut |p| p["a"].sum_all()).expect_err("refused");
        assert_eq!(error.to_string(), "the parameter `lost` got no gradient");
    }
}
