//! A kernel of ours as an operation of candle's, with its backward.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Shape, Storage};

pub(super) fn arity(op: &'static str) -> candle_core::Error {
    candle_core::Error::Msg(format!("{op} got another number of arguments"))
}

/// The values of tensors, without a copy where they are contiguous.
pub(super) fn with_values<R>(
    tensors: &[&candle_core::Tensor],
    run: impl FnOnce(&[&[f32]]) -> R,
) -> candle_core::Result<R> {
    let tensors = tensors.iter().map(|t| t.contiguous()).collect::<candle_core::Result<Vec<_>>>()?;
    let held: Vec<_> = tensors.iter().map(|t| t.storage_and_layout()).collect();
    let slices = held
        .iter()
        .map(|(storage, layout)| match &**storage {
            Storage::Cpu(storage) => {
                let start = layout.start_offset();
                Ok(&storage.as_slice::<f32>()?[start..start + layout.shape().elem_count()])
            }
            _ => Err(candle_core::Error::Msg("the tensor is not on the CPU".into())),
        })
        .collect::<candle_core::Result<Vec<&[f32]>>>()?;
    Ok(run(&slices))
}

/// A gradient of `shape_of`'s shape.
pub(super) fn like(
    shape_of: &candle_core::Tensor,
    from: &[&candle_core::Tensor],
    run: impl FnOnce(&[&[f32]]) -> Vec<f32>,
) -> candle_core::Result<candle_core::Tensor> {
    candle_core::Tensor::from_vec(with_values(from, run)?, shape_of.dims(), &Device::Cpu)
}

pub(super) fn one(grad: candle_core::Result<candle_core::Tensor>) -> candle_core::Result<Grads> {
    Ok([Some(grad?), None, None])
}

pub(super) type Slice<'a> = (&'a [f32], &'a [usize]);
/// By each argument.
pub(super) type Grads = [Option<candle_core::Tensor>; 3];
type Forward = Box<dyn Fn(&[Slice<'_>]) -> Vec<f32> + Send + Sync>;
type Backward = Box<
    dyn Fn(&[candle_core::Tensor], &candle_core::Tensor, &candle_core::Tensor) -> candle_core::Result<Grads>
        + Send
        + Sync,
>;

/// A kernel of ours as an operation of candle's: the result has the first argument's shape. `backward` gets
/// the arguments, the result and its gradient.
pub(super) struct Fused {
    name: &'static str,
    forward: Forward,
    backward: Backward,
}

impl Fused {
    pub(super) fn new(
        name: &'static str,
        forward: impl Fn(&[Slice<'_>]) -> Vec<f32> + Send + Sync + 'static,
        backward: impl Fn(&[candle_core::Tensor], &candle_core::Tensor, &candle_core::Tensor) -> candle_core::Result<Grads>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { name, forward: Box::new(forward), backward: Box::new(backward) }
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
pub(super) struct Shaped {
    pub(super) shape: Vec<usize>,
    pub(super) op: Fused,
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
                let [by_arg, ..] = (self.op().backward)(std::slice::from_ref(arg), result, grad)?;
                Ok(by_arg)
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
                let [by_a, by_b, _] = (self.op().backward)(&[a.clone(), b.clone()], result, grad)?;
                Ok((by_a, by_b))
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
                Ok((self.op().backward)(&[a.clone(), b.clone(), c.clone()], result, grad)?.into())
            }
        }
    };
}

custom_ops!(Fused);
custom_ops!(Shaped);
