//! candle behind the tensor interface: its only user.
//!
//! candle's fused softmax and norms have no backward and drop gradients without a word, so the fused
//! operations here are our own kernels, each with its backward.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Shape, Var};

use super::kernels::{self, Window};
use super::{BackendError, Params, Result, Tensor};

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
        Ok(self.0.flatten_all()?.to_vec1()?)
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
        wrap(self.0.index_select(&ids, 0))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        wrap(self.0.broadcast_add(&other.0))
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        wrap(self.0.broadcast_sub(&other.0))
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        wrap(self.0.broadcast_mul(&other.0))
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
        let op = Fused {
            name: "gelu",
            forward: Box::new(|args| kernels::gelu(args[0].0)),
            backward: Box::new(|args, _, grad| {
                let op = Fused::plain("gelu-grad", |a| kernels::gelu_grad(a[0].0, a[1].0));
                apply2(&args[0], grad, op)
            }),
        };
        wrap(self.0.contiguous()?.apply_op1(op))
    }

    fn sum(&self, axis: usize) -> Result<Self> {
        wrap(self.0.sum_keepdim(axis))
    }

    fn sum_all(&self) -> Result<Self> {
        wrap(self.0.sum_all())
    }

    fn matmul(&self, other: &Self) -> Result<Self> {
        wrap(self.0.contiguous()?.matmul(&other.0.contiguous()?))
    }

    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        let mut shape = self.0.dims().to_vec();
        let width = shape.pop().unwrap_or(1);
        let rows: usize = shape.iter().product();
        let flat = self.0.reshape((rows, width))?.contiguous()?;
        let out = flat.matmul(&weight.0.t()?)?;
        let out = match bias {
            Some(bias) => out.broadcast_add(&bias.0)?,
            None => out,
        };
        shape.push(weight.0.dim(0)?);
        wrap(out.reshape(shape))
    }

    fn softmax(&self) -> Result<Self> {
        let width = *self.0.dims().last().unwrap_or(&1);
        let op = Fused {
            name: "softmax",
            forward: Box::new(move |args| kernels::softmax(args[0].0, width)),
            backward: Box::new(move |_, result, grad| {
                let op = Fused::plain("softmax-grad", move |a| kernels::softmax_grad(a[0].0, a[1].0, width));
                apply2(result, grad, op)
            }),
        };
        wrap(self.0.contiguous()?.apply_op1(op))
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f32) -> Result<Self> {
        let op = Fused {
            name: "layer-norm",
            forward: Box::new(move |a| kernels::layer_norm(a[0].0, a[1].0, a[2].0, eps)),
            backward: Box::new(move |args, _, grad| {
                let op =
                    Fused::plain("layer-norm-grad", move |a| kernels::layer_norm_grad(a[0].0, a[1].0, a[2].0, eps));
                apply3(&args[0], &args[1], grad, op)
            }),
        };
        wrap(self.0.contiguous()?.apply_op3(&weight.0, &bias.0, op))
    }

    fn depthwise(&self, weight: &Self, window: Window) -> Result<Self> {
        let (n, h, w, c) = self.0.dims4()?;
        let shape = [n, h, w, c];
        let op = Shaped {
            shape: vec![n, window.out_h, window.out_w, c],
            op: Fused {
                name: "depthwise",
                forward: Box::new(move |a| kernels::depthwise(a[0].0, a[1].0, shape, window)),
                backward: Box::new(move |args, _, grad| {
                    let op =
                        Fused::plain("depthwise-grad", move |a| kernels::depthwise_grad(a[0].0, a[1].0, shape, window));
                    grad.contiguous()?.apply_op2(&args[1], Shaped { shape: shape.to_vec(), op })
                }),
            },
        };
        wrap(self.0.contiguous()?.apply_op2(&weight.0.contiguous()?, op))
    }

    fn patches(&self, window: Window) -> Result<Self> {
        let (n, h, w, c) = self.0.dims4()?;
        let op = Shaped {
            shape: vec![n * window.out_h * window.out_w, window.size * window.size * c],
            op: Fused::plain("patches", move |a| kernels::patches(a[0].0, [n, h, w, c], window)),
        };
        wrap(self.0.contiguous()?.apply_op1_no_bwd(&op))
    }

    fn scale_shift(&self, scale: &Self, shift: &Self, low: f32, high: f32) -> Result<Self> {
        let op = Fused {
            name: "scale-shift",
            forward: Box::new(move |a| kernels::scale_shift(a[0].0, a[1].0, a[2].0, low, high)),
            backward: Box::new(move |args, result, grad| {
                let op = Fused::plain("scale-shift-grad", move |a| {
                    kernels::scale_shift_grad(a[0].0, a[1].0, a[2].0, low, high)
                });
                apply3(result, grad, &args[1], op)
            }),
        };
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

type Slice<'a> = (&'a [f32], &'a [usize]);
type Forward = Box<dyn Fn(&[Slice<'_>]) -> Vec<f32> + Send + Sync>;
type Backward = Box<
    dyn Fn(
            &[candle_core::Tensor],
            &candle_core::Tensor,
            &candle_core::Tensor,
        ) -> candle_core::Result<candle_core::Tensor>
        + Send
        + Sync,
>;

/// A kernel of ours as an operation of candle's: the result has the first argument's shape, and only that
/// one gets a gradient.
struct Fused {
    name: &'static str,
    forward: Forward,
    backward: Backward,
}

impl Fused {
    /// One that stands in a backward pass and needs none itself.
    fn plain(name: &'static str, forward: impl Fn(&[Slice<'_>]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        let backward: Backward = Box::new(move |_, _, _| Err(candle_core::Error::BackwardNotSupported { op: name }));
        Self { name, forward: Box::new(forward), backward }
    }

    fn run(&self, args: &[(&CpuStorage, &Layout)]) -> candle_core::Result<Vec<f32>> {
        let slices = args
            .iter()
            .map(|(storage, layout)| {
                let (from, to) = layout
                    .contiguous_offsets()
                    .ok_or_else(|| candle_core::Error::RequiresContiguous { op: self.name })?;
                Ok((&storage.as_slice::<f32>()?[from..to], layout.dims()))
            })
            .collect::<candle_core::Result<Vec<Slice<'_>>>>()?;
        Ok((self.forward)(&slices))
    }
}

/// The same with a result of another shape.
struct Shaped {
    shape: Vec<usize>,
    op: Fused,
}

fn apply2(a: &candle_core::Tensor, b: &candle_core::Tensor, op: Fused) -> candle_core::Result<candle_core::Tensor> {
    a.contiguous()?.apply_op2_arc(&b.contiguous()?, Arc::new(Box::new(op)))
}

fn apply3(
    a: &candle_core::Tensor,
    b: &candle_core::Tensor,
    c: &candle_core::Tensor,
    op: Fused,
) -> candle_core::Result<candle_core::Tensor> {
    a.contiguous()?.apply_op3_arc(&b.contiguous()?, &c.contiguous()?, Arc::new(Box::new(op)))
}

/// What both forms give candle.
trait Operation {
    fn op(&self) -> &Fused;
    fn result_shape(&self, first: &Layout) -> Shape;
}

impl Operation for Fused {
    fn op(&self) -> &Fused {
        self
    }
    fn result_shape(&self, first: &Layout) -> Shape {
        first.shape().clone()
    }
}

impl Operation for Shaped {
    fn op(&self) -> &Fused {
        &self.op
    }
    fn result_shape(&self, _first: &Layout) -> Shape {
        Shape::from(self.shape.clone())
    }
}

macro_rules! custom_ops {
    ($form:ty) => {
        impl CustomOp1 for $form {
            fn name(&self) -> &'static str {
                self.op().name
            }
            fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
                Ok((CpuStorage::F32(self.op().run(&[(s, l)])?), self.result_shape(l)))
            }
            fn bwd(
                &self,
                arg: &candle_core::Tensor,
                result: &candle_core::Tensor,
                grad: &candle_core::Tensor,
            ) -> candle_core::Result<Option<candle_core::Tensor>> {
                (self.op().backward)(&[arg.clone()], result, grad).map(Some)
            }
        }

        impl CustomOp2 for $form {
            fn name(&self) -> &'static str {
                self.op().name
            }
            fn cpu_fwd(
                &self,
                s1: &CpuStorage,
                l1: &Layout,
                s2: &CpuStorage,
                l2: &Layout,
            ) -> candle_core::Result<(CpuStorage, Shape)> {
                Ok((CpuStorage::F32(self.op().run(&[(s1, l1), (s2, l2)])?), self.result_shape(l1)))
            }
            fn bwd(
                &self,
                a: &candle_core::Tensor,
                b: &candle_core::Tensor,
                result: &candle_core::Tensor,
                grad: &candle_core::Tensor,
            ) -> candle_core::Result<(Option<candle_core::Tensor>, Option<candle_core::Tensor>)> {
                Ok((Some((self.op().backward)(&[a.clone(), b.clone()], result, grad)?), None))
            }
        }

        impl CustomOp3 for $form {
            fn name(&self) -> &'static str {
                self.op().name
            }
            fn cpu_fwd(
                &self,
                s1: &CpuStorage,
                l1: &Layout,
                s2: &CpuStorage,
                l2: &Layout,
                s3: &CpuStorage,
                l3: &Layout,
            ) -> candle_core::Result<(CpuStorage, Shape)> {
                Ok((CpuStorage::F32(self.op().run(&[(s1, l1), (s2, l2), (s3, l3)])?), self.result_shape(l1)))
            }
            fn bwd(
                &self,
                a: &candle_core::Tensor,
                b: &candle_core::Tensor,
                c: &candle_core::Tensor,
                result: &candle_core::Tensor,
                grad: &candle_core::Tensor,
            ) -> candle_core::Result<(
                Option<candle_core::Tensor>,
                Option<candle_core::Tensor>,
                Option<candle_core::Tensor>,
            )> {
                Ok((Some((self.op().backward)(&[a.clone(), b.clone(), c.clone()], result, grad)?), None, None))
            }
        }
    };
}

custom_ops!(Fused);
custom_ops!(Shaped);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rng::Rng;

    fn random(shape: &[usize], name: &str) -> CandleTensor {
        let mut rng = Rng::new(3, name);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal()).collect();
        CandleTensor::from_f32(&values, shape).expect("fits")
    }

    #[test]
    fn gradients_pass_through_every_fused_operation() {
        let x = Params::from([("x".to_owned(), random(&[2, 4, 4, 6], "x"))]);
        let (w, b, k) = (random(&[6], "w"), random(&[6], "b"), random(&[3, 3, 6], "k"));
        let (value, grads) = CandleTensor::value_and_grad(&x, &mut |p| {
            let y = p["x"].depthwise(&k, Window::same(4, 4, 3, 1))?.scale_shift(&w, &b, 0.0, 6.0)?;
            y.layer_norm(&w, &b, 1e-5)?.gelu()?.softmax()?.log_softmax()?.mul(&random(&[6], "m"))?.sum_all()
        })
        .expect("works");
        assert!(value.is_finite());
        assert!(grads["x"].to_f32().expect("values").iter().any(|g| g.abs() > 1e-9));
    }

    #[test]
    fn a_parameter_without_a_gradient_is_named() {
        let params = Params::from([("a".to_owned(), random(&[2], "a")), ("lost".to_owned(), random(&[2], "l"))]);
        let error = CandleTensor::value_and_grad(&params, &mut |p| p["a"].sum_all()).expect_err("refused");
        assert_eq!(error.to_string(), "the parameter `lost` got no gradient");
    }
}
