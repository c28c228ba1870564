//! A third implementation of the tensor interface, which notes what a model does: the graph of an export.
//!
//! A [`TraceTensor`] is a node: an operation, what it was given, and the shape of what it gives. What depends on no input is
//! computed at once, by candle: weights that a model prepares may be read, and are constants afterwards. What depends on an
//! input has a shape only, and reading it is an error that names the operation; so a model whose graph would depend on
//! values cannot be exported wrong. A model that is traced with inputs that are given ([`TraceTensor::given`],
//! [`super::Texts::given`]) has the value of every node, for who looks for the one that another program computes otherwise.
//!
//! Shapes are numbers here. A graph for any number of texts is found by tracing twice: see `export::graph` of effai.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::attention::{Scope, Shape};
use super::kernels::Window;
use super::qmatrix::QMatrix;
use super::texts::{Lengths, Mark, Texts};
use super::{BackendError, CandleTensor, Params, Precision, Result, Tensor};

/// What a node does. `N` is a number that may depend on how much a graph is given: `usize` in one run.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<N> {
    /// Values that are known.
    Constant,
    /// What the graph is given under a name.
    Input(String),
    /// [`Tensor::reshape`].
    Reshape(Vec<N>),
    /// [`Tensor::swap_axes`].
    SwapAxes(usize, usize),
    /// [`Tensor::narrow`].
    Narrow {
        /// Of which axis.
        axis: usize,
        /// The first entry.
        start: N,
        /// How many.
        len: N,
    },
    /// [`Tensor::concat`].
    Concat(usize),
    /// [`Tensor::take_rows`], of known numbers.
    TakeRows(Vec<u32>),
    /// [`Tensor::repeat`].
    Repeat(N),
    /// [`Tensor::embed`], by the input of this name.
    Embed(String),
    /// [`Tensor::embed_quantized`], by the input of this name.
    EmbedQuantized(Arc<QMatrix>, String),
    /// [`Tensor::take_tokens`], by the input of token ids of this name.
    TakeTokens(String, Mark),
    /// [`Tensor::mean_tokens`], by the mask of this name.
    MeanTokens(String),
    /// [`Tensor::add`].
    Add,
    /// [`Tensor::sub`].
    Sub,
    /// [`Tensor::mul`].
    Mul,
    /// [`Tensor::div`].
    Div,
    /// [`Tensor::affine`]: factor, offset.
    Affine(f64, f64),
    /// [`Tensor::exp`].
    Exp,
    /// [`Tensor::log`].
    Log,
    /// [`Tensor::sqrt`].
    Sqrt,
    /// [`Tensor::gelu`].
    Gelu,
    /// [`Tensor::quick_gelu`].
    QuickGelu,
    /// [`Tensor::sum`].
    Sum(usize),
    /// [`Tensor::sum_all`].
    SumAll,
    /// [`Tensor::matmul`].
    Matmul,
    /// [`Tensor::linear`]: x, weight and, where there is one, bias.
    Linear,
    /// [`Tensor::linear_quantized`].
    LinearQuantized(Arc<QMatrix>),
    /// [`Tensor::softmax`].
    Softmax,
    /// [`Tensor::layer_norm`]: x, weight, bias.
    LayerNorm(f32),
    /// [`Tensor::rms_norm`]: x, weight.
    RmsNorm(f32),
    /// [`Tensor::rope`].
    Rope {
        /// Of the first row.
        offset: N,
        /// Of the frequencies.
        base: f32,
    },
    /// [`Tensor::swiglu`]: gate, up.
    Swiglu,
    /// [`Tensor::attention`]: queries, keys, values.
    Attention {
        /// The input that says which keys are no padding; none where all are.
        mask: Option<String>,
        /// As in [`Scope`].
        causal: bool,
        /// What scores are multiplied by.
        scale: f32,
    },
    /// [`Tensor::depthwise`]: x, weight and, where one was folded into it, bias.
    Depthwise(Window),
    /// [`Tensor::patches`].
    Patches(Window),
    /// [`Tensor::scale_shift`]: x, scale, shift.
    ScaleShift(f32, f32),
}

impl<N> Op<N> {
    /// Its name in the text form of a graph and in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Constant => "constant",
            Op::Input(_) => "input",
            Op::Reshape(_) => "reshape",
            Op::SwapAxes(..) => "swap-axes",
            Op::Narrow { .. } => "narrow",
            Op::Concat(_) => "concat",
            Op::TakeRows(_) => "take-rows",
            Op::Repeat(_) => "repeat",
            Op::Embed(_) => "embed",
            Op::EmbedQuantized(..) => "embed-quantized",
            Op::TakeTokens(..) => "take-tokens",
            Op::MeanTokens(_) => "mean-tokens",
            Op::Add => "add",
            Op::Sub => "sub",
            Op::Mul => "mul",
            Op::Div => "div",
            Op::Affine(..) => "affine",
            Op::Exp => "exp",
            Op::Log => "log",
            Op::Sqrt => "sqrt",
            Op::Gelu => "gelu",
            Op::QuickGelu => "quick-gelu",
            Op::Sum(_) => "sum",
            Op::SumAll => "sum-all",
            Op::Matmul => "matmul",
            Op::Linear => "linear",
            Op::LinearQuantized(_) => "linear-quantized",
            Op::Softmax => "softmax",
            Op::LayerNorm(_) => "layer-norm",
            Op::RmsNorm(_) => "rms-norm",
            Op::Rope { .. } => "rope",
            Op::Swiglu => "swiglu",
            Op::Attention { .. } => "attention",
            Op::Depthwise(_) => "depthwise",
            Op::Patches(_) => "patches",
            Op::ScaleShift(..) => "scale-shift",
        }
    }
}

/// One operation of a run.
#[derive(Debug)]
pub struct Node {
    /// What it does.
    pub op: Op<usize>,
    /// What it was given.
    pub inputs: Vec<TraceTensor>,
    /// The length of each axis of what it gives.
    pub shape: Vec<usize>,
    /// Whether it depends on no input.
    pub is_fixed: bool,
    value: Option<CandleTensor>,
    name: RefCell<Option<Rc<str>>>,
}

/// A node of a graph that is being noted.
#[derive(Clone, Debug)]
pub struct TraceTensor(Rc<Node>);

/// How candle does it.
type Compute<'a> = &'a dyn Fn(&[CandleTensor]) -> Result<CandleTensor>;

impl TraceTensor {
    /// An input of this shape.
    pub fn input(name: &str, shape: &[usize]) -> Self {
        Self::leaf(Op::Input(name.to_owned()), shape.to_vec(), None, false)
    }

    /// An input whose values are given: what depends on it is computed as it is noted.
    pub fn given(name: &str, values: &[f32], shape: &[usize]) -> Result<Self> {
        let value = CandleTensor::from_f32(values, shape)?;
        Ok(Self::leaf(Op::Input(name.to_owned()), shape.to_vec(), Some(value), false))
    }

    /// The weight it is, or is computed of alone.
    pub fn name(&self) -> Option<Rc<str>> {
        self.0.name.borrow().clone()
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.0
    }

    /// Tells nodes apart.
    pub fn id(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    /// Its values, where they are known or were given.
    pub fn values(&self) -> Option<Result<Vec<f32>>> {
        self.0.value.as_ref().map(CandleTensor::to_f32)
    }

    fn leaf(op: Op<usize>, shape: Vec<usize>, value: Option<CandleTensor>, is_fixed: bool) -> Self {
        Self(Rc::new(Node { op, inputs: Vec::new(), shape, is_fixed, value, name: RefCell::new(None) }))
    }

    /// Notes an operation, and does it where what it is given is known.
    fn note(op: Op<usize>, inputs: &[&Self], shape: Vec<usize>, compute: Compute<'_>) -> Result<Self> {
        Self::note_with(op, inputs, shape, true, compute)
    }

    /// The same of an operation that reads texts, which may be known.
    fn note_texts(
        op: Op<usize>,
        inputs: &[&Self],
        shape: Vec<usize>,
        are_known: bool,
        compute: Compute<'_>,
    ) -> Result<Self> {
        let mut noted = Self::note_with(op, inputs, shape, are_known, compute)?;
        Rc::get_mut(&mut noted.0).expect("just made").is_fixed = false;
        Ok(noted)
    }

    fn note_with(
        op: Op<usize>,
        inputs: &[&Self],
        shape: Vec<usize>,
        are_known: bool,
        compute: Compute<'_>,
    ) -> Result<Self> {
        let known: Option<Vec<CandleTensor>> = inputs.iter().map(|input| input.0.value.clone()).collect();
        let value = known.filter(|_| are_known).map(|known| compute(&known)).transpose()?;
        let is_fixed = inputs.iter().all(|input| input.0.is_fixed);
        let name = inputs.iter().filter(|_| is_fixed).find_map(|input| input.name());
        let inputs: Vec<Self> = inputs.iter().map(|input| (*input).clone()).collect();
        let node = Node { op, inputs, shape, is_fixed, value, name: RefCell::new(name) };
        debug_assert!(node.value.as_ref().is_none_or(|value| value.shape() == node.shape), "{:?}", node.op);
        Ok(Self(Rc::new(node)))
    }

    fn unary(&self, op: Op<usize>, compute: impl Fn(&CandleTensor) -> Result<CandleTensor>) -> Result<Self> {
        Self::note(op, &[self], self.shape(), &|x| compute(&x[0]))
    }

    fn binary(
        &self,
        other: &Self,
        op: Op<usize>,
        compute: impl Fn(&CandleTensor, &CandleTensor) -> Result<CandleTensor>,
    ) -> Result<Self> {
        let shape = broadcast(&self.0.shape, &other.0.shape)
            .ok_or_else(|| misfit(format!("{} of {:?} and {:?}", op.name(), self.0.shape, other.0.shape)))?;
        Self::note(op, &[self, other], shape, &|x| compute(&x[0], &x[1]))
    }

    fn last(&self) -> usize {
        self.0.shape.last().copied().unwrap_or(1)
    }

    fn with_last(&self, width: usize) -> Vec<usize> {
        let mut shape = self.shape();
        if let Some(last) = shape.last_mut() {
            *last = width;
        }
        shape
    }

    /// Refuses weights that do not fit the last axis.
    fn check_width(&self, op: &str, weights: &[&Self]) -> Result<()> {
        let width = self.last();
        match weights.iter().find(|weight| weight.0.shape.iter().product::<usize>() != width) {
            Some(weight) => Err(misfit(format!("{op} of rows of {width} by {:?}", weight.0.shape))),
            None => Ok(()),
        }
    }
}

fn misfit(message: String) -> BackendError {
    BackendError::Library(message)
}

/// The shape of what two tensors give together, as numpy has it.
fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (one, other) if one == other || other == 1 => Some(one),
            (1, other) => Some(other),
            _ => None,
        })
        .collect()
}

impl Tensor for TraceTensor {
    fn from_f32(values: &[f32], shape: &[usize]) -> Result<Self> {
        let value = CandleTensor::from_f32(values, shape)?;
        Ok(Self::leaf(Op::Constant, shape.to_vec(), Some(value), true))
    }

    fn to_f32(&self) -> Result<Vec<f32>> {
        match &self.0.value {
            Some(value) if self.0.is_fixed => value.to_f32(),
            _ => Err(misfit(format!("the model reads what `{}` gives, which depends on its inputs", self.0.op.name()))),
        }
    }

    fn cast(&self, precision: Precision) -> Result<Self> {
        match precision {
            Precision::F32 => Ok(self.clone()),
            Precision::Bf16 => Err(misfit("a model is traced in 32-bit floats".into())),
        }
    }

    fn settled(&self) -> Result<Self> {
        Ok(self.clone())
    }

    fn shape(&self) -> Vec<usize> {
        self.0.shape.clone()
    }

    fn named(self, name: &str) -> Self {
        *self.0.name.borrow_mut() = Some(Rc::from(name));
        self
    }

    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.0.shape.iter().product::<usize>() {
            return Err(misfit(format!("a tensor {:?} as {shape:?}", self.0.shape)));
        }
        Self::note(Op::Reshape(shape.to_vec()), &[self], shape.to_vec(), &|x| x[0].reshape(shape))
    }

    fn swap_axes(&self, a: usize, b: usize) -> Result<Self> {
        let mut shape = self.shape();
        if a.max(b) >= shape.len() {
            return Err(misfit(format!("axes {a} and {b} of a tensor {shape:?}")));
        }
        shape.swap(a, b);
        Self::note(Op::SwapAxes(a, b), &[self], shape, &|x| x[0].swap_axes(a, b))
    }

    fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self> {
        let mut shape = self.shape();
        match shape.get_mut(axis) {
            Some(whole) if start + len <= *whole => *whole = len,
            _ => return Err(misfit(format!("entries {start} to {} of axis {axis} of {shape:?}", start + len))),
        }
        Self::note(Op::Narrow { axis, start, len }, &[self], shape, &|x| x[0].narrow(axis, start, len))
    }

    fn concat(parts: &[Self], axis: usize) -> Result<Self> {
        let inputs: Vec<&Self> = parts.iter().collect();
        let mut shape = parts.first().map(Self::shape).unwrap_or_default();
        let fits = |part: &Self| {
            part.0.shape.len() == shape.len() && (0..shape.len()).all(|i| i == axis || part.0.shape[i] == shape[i])
        };
        if axis >= shape.len() || !parts.iter().all(fits) {
            let shapes: Vec<&Vec<usize>> = parts.iter().map(|part| &part.0.shape).collect();
            return Err(misfit(format!("tensors {shapes:?} one after another along axis {axis}")));
        }
        shape[axis] = parts.iter().map(|part| part.0.shape[axis]).sum();
        Self::note(Op::Concat(axis), &inputs, shape, &|x| CandleTensor::concat(x, axis))
    }

    fn take_rows(&self, ids: &[u32]) -> Result<Self> {
        let mut shape = self.shape();
        match shape.first_mut() {
            Some(rows) if ids.iter().all(|id| (*id as usize) < *rows) => *rows = ids.len(),
            _ => return Err(misfit(format!("rows {ids:?} of a tensor {shape:?}"))),
        }
        Self::note(Op::TakeRows(ids.to_vec()), &[self], shape, &|x| x[0].take_rows(ids))
    }

    fn embed(&self, texts: &Texts) -> Result<Self> {
        let shape = [&[texts.count(), texts.longest()], &self.0.shape[1..]].concat();
        let Some(named) = texts.named() else {
            return self.take_rows(&texts.padded())?.reshape(&shape);
        };
        let op = Op::Embed(named.ids.clone());
        Self::note_texts(op, &[self], shape, texts.are_known(), &|x| x[0].embed(texts))
    }

    fn embed_quantized(table: &Arc<QMatrix>, texts: &Texts) -> Result<Self> {
        let Some(named) = texts.named() else {
            let rows = CandleTensor::embed_quantized(table, texts)?;
            return Self::from_f32(&rows.to_f32()?, &rows.shape());
        };
        let shape = vec![texts.count(), texts.longest(), table.inner()];
        let op = Op::EmbedQuantized(table.clone(), named.ids.clone());
        Self::note_texts(op, &[], shape, texts.are_known(), &|_| CandleTensor::embed_quantized(table, texts))
    }

    fn take_tokens(&self, texts: &Texts, mark: Mark) -> Result<Self> {
        let &[count, longest, width] = &self.0.shape[..] else {
            return Err(misfit(format!("tokens of a tensor {:?}", self.0.shape)));
        };
        let Some(named) = texts.named() else {
            return self.reshape(&[count * longest, width])?.take_rows(&texts.places(mark)?);
        };
        let op = Op::TakeTokens(named.ids.clone(), mark);
        Self::note_texts(op, &[self], vec![count, width], texts.are_known(), &|x| x[0].take_tokens(texts, mark))
    }

    fn mean_tokens(&self, lengths: &Lengths) -> Result<Self> {
        let (&[count, _, width], Some(mask)) = (&self.0.shape[..], lengths.mask()) else {
            let shape = &self.0.shape;
            return Err(misfit(format!("averages of a tensor {shape:?} by lengths that are no input of the graph")));
        };
        let op = Op::MeanTokens(mask.to_owned());
        Self::note(op, &[self], vec![count, width], &|x| x[0].mean_tokens(lengths))
    }

    fn repeat(&self, times: usize) -> Result<Self> {
        let mut shape = self.shape();
        match shape.first_mut() {
            Some(rows) if *rows == 1 => *rows = times,
            _ => return Err(misfit(format!("a tensor {shape:?} {times} times"))),
        }
        Self::note(Op::Repeat(times), &[self], shape, &|x| x[0].repeat(times))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        self.binary(other, Op::Add, CandleTensor::add)
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        self.binary(other, Op::Sub, CandleTensor::sub)
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        self.binary(other, Op::Mul, CandleTensor::mul)
    }

    fn div(&self, other: &Self) -> Result<Self> {
        self.binary(other, Op::Div, CandleTensor::div)
    }

    fn affine(&self, factor: f64, offset: f64) -> Result<Self> {
        self.unary(Op::Affine(factor, offset), |x| x.affine(factor, offset))
    }

    fn exp(&self) -> Result<Self> {
        self.unary(Op::Exp, CandleTensor::exp)
    }

    fn log(&self) -> Result<Self> {
        self.unary(Op::Log, CandleTensor::log)
    }

    fn sqrt(&self) -> Result<Self> {
        self.unary(Op::Sqrt, CandleTensor::sqrt)
    }

    fn gelu(&self) -> Result<Self> {
        self.unary(Op::Gelu, CandleTensor::gelu)
    }

    fn quick_gelu(&self) -> Result<Self> {
        self.unary(Op::QuickGelu, CandleTensor::quick_gelu)
    }

    fn sum(&self, axis: usize) -> Result<Self> {
        let mut shape = self.shape();
        *shape.get_mut(axis).ok_or_else(|| misfit(format!("a sum over axis {axis} of {:?}", self.0.shape)))? = 1;
        Self::note(Op::Sum(axis), &[self], shape, &|x| x[0].sum(axis))
    }

    fn sum_all(&self) -> Result<Self> {
        Self::note(Op::SumAll, &[self], Vec::new(), &|x| x[0].sum_all())
    }

    fn matmul(&self, other: &Self) -> Result<Self> {
        let (a, b) = (&self.0.shape, &other.0.shape);
        let fits = a.len() == b.len() && a.len() >= 2 && a[..a.len() - 2] == b[..b.len() - 2];
        if !fits || a[a.len() - 1] != b[b.len() - 2] {
            return Err(misfit(format!("a product of {a:?} and {b:?}")));
        }
        Self::note(Op::Matmul, &[self, other], self.with_last(b[b.len() - 1]), &|x| x[0].matmul(&x[1]))
    }

    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self> {
        let &[out, inner] = &weight.0.shape[..] else {
            return Err(misfit(format!("a matrix {:?} for rows of {}", weight.0.shape, self.last())));
        };
        if inner != self.last() {
            return Err(misfit(format!("a matrix [{out}, {inner}] for rows of {}", self.last())));
        }
        let inputs: Vec<&Self> = [self, weight].into_iter().chain(bias).collect();
        Self::note(Op::Linear, &inputs, self.with_last(out), &|x| x[0].linear(&x[1], x.get(2)))
    }

    fn linear_quantized(&self, weight: &Arc<QMatrix>) -> Result<Self> {
        if weight.inner() != self.last() {
            let (out, inner) = (weight.rows(), weight.inner());
            return Err(misfit(format!("a matrix [{out}, {inner}] for rows of {}", self.last())));
        }
        let op = Op::LinearQuantized(weight.clone());
        Self::note(op, &[self], self.with_last(weight.rows()), &|x| x[0].linear_quantized(weight))
    }

    fn softmax(&self) -> Result<Self> {
        self.unary(Op::Softmax, CandleTensor::softmax)
    }

    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f32) -> Result<Self> {
        self.check_width("layer norm", &[weight, bias])?;
        let inputs = [self, weight, bias];
        Self::note(Op::LayerNorm(eps), &inputs, self.shape(), &|x| x[0].layer_norm(&x[1], &x[2], eps))
    }

    fn rms_norm(&self, weight: &Self, eps: f32) -> Result<Self> {
        self.check_width("RMS norm", &[weight])?;
        Self::note(Op::RmsNorm(eps), &[self, weight], self.shape(), &|x| x[0].rms_norm(&x[1], eps))
    }

    fn rope(&self, offset: usize, base: f32) -> Result<Self> {
        self.unary(Op::Rope { offset, base }, |x| x.rope(offset, base))
    }

    fn swiglu(&self, up: &Self) -> Result<Self> {
        if self.0.shape != up.0.shape {
            return Err(misfit(format!("swiglu of {:?} and {:?}", self.0.shape, up.0.shape)));
        }
        self.binary(up, Op::Swiglu, CandleTensor::swiglu)
    }

    fn attention(q: &Self, k: &Self, v: &Self, scope: &Scope, scale: f32) -> Result<Self> {
        let shape = Shape::new(&q.0.shape, &k.0.shape, &v.0.shape, scope, scale).ok_or_else(|| {
            misfit(format!("attention of queries {:?}, keys {:?}, values {:?}", q.0.shape, k.0.shape, v.0.shape))
        })?;
        let mask = scope.lengths.mask().map(str::to_owned);
        if mask.is_none() && scope.lengths.iter().any(|length| *length < shape.keys) {
            return Err(misfit("attention by lengths that are no input of the graph".into()));
        }
        let op = Op::Attention { mask, causal: scope.causal, scale };
        let compute = |x: &[CandleTensor]| CandleTensor::attention(&x[0], &x[1], &x[2], scope, scale);
        Self::note(op, &[q, k, v], q.shape(), &compute)
    }

    fn cross_entropy(&self, _matrix: &Self, _targets: &[u32]) -> Result<Self> {
        Err(misfit("a loss is no part of a graph".into()))
    }

    fn depthwise(&self, weight: &Self, window: Window) -> Result<Self> {
        let &[n, _, _, c] = &self.0.shape[..] else {
            return Err(misfit(format!("pictures of a tensor {:?}", self.0.shape)));
        };
        if weight.0.shape != [window.size, window.size, c] {
            return Err(misfit(format!("depth-wise taps {:?} over {c} channels", weight.0.shape)));
        }
        let shape = vec![n, window.out_h, window.out_w, c];
        Self::note(Op::Depthwise(window), &[self, weight], shape, &|x| x[0].depthwise(&x[1], window))
    }

    fn patches(&self, window: Window) -> Result<Self> {
        let &[n, _, _, c] = &self.0.shape[..] else {
            return Err(misfit(format!("pictures of a tensor {:?}", self.0.shape)));
        };
        let shape = vec![n * window.out_h * window.out_w, window.size * window.size * c];
        Self::note(Op::Patches(window), &[self], shape, &|x| x[0].patches(window))
    }

    fn scale_shift(&self, scale: &Self, shift: &Self, low: f32, high: f32) -> Result<Self> {
        self.check_width("scale and shift", &[scale, shift])?;
        let op = Op::ScaleShift(low, high);
        Self::note(op, &[self, scale, shift], self.shape(), &|x| x[0].scale_shift(&x[1], &x[2], low, high))
    }

    fn detach(&self) -> Self {
        self.clone()
    }

    fn value_and_grad(
        _params: &Params<Self>,
        _loss: &mut dyn FnMut(&Params<Self>) -> Result<Self>,
    ) -> Result<(f32, Params<Self>)> {
        Err(misfit("what is traced has no gradients".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::random;

    #[test]
    fn what_depends_on_no_input_is_computed_and_what_does_is_not_read() {
        let weight = TraceTensor::from_f32(&random(6, "w"), &[2, 3]).expect("fits").named("m.weight");
        let turned = weight.swap_axes(0, 1).expect("turns");
        assert_eq!((turned.shape(), turned.name().as_deref()), (vec![3, 2], Some("m.weight")));
        assert_eq!(turned.to_f32().expect("known")[1], weight.to_f32().expect("known")[3]);
        let y = TraceTensor::input("x", &[5, 3]).linear(&weight, None).expect("fits").gelu().expect("fits");
        assert_eq!((y.shape(), y.node().is_fixed), (vec![5, 2], false));
        let error = y.to_f32().expect_err("not known");
        assert_eq!(error.to_string(), "the model reads what `gelu` gives, which depends on its inputs");
    }

    #[test]
    fn inputs_that_are_given_give_every_node_its_value() {
        let (x, w) = (random(6, "x"), random(6, "w"));
        let plain = CandleTensor::from_f32(&x, &[2, 3]).expect("fits");
        let plain = plain.linear(&CandleTensor::from_f32(&w, &[2, 3]).expect("fits"), None).expect("fits");
        let traced = TraceTensor::given("x", &x, &[2, 3]).expect("fits");
        let traced = traced.linear(&TraceTensor::from_f32(&w, &[2, 3]).expect("fits"), None).expect("fits");
        let values = traced.values().expect("given").expect("computed");
        assert_eq!(values, plain.to_f32().expect("computed"));
        assert!(traced.to_f32().is_err(), "it depends on an input all the same");
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused_as_backends_do() {
        let x = TraceTensor::input("x", &[2, 3]);
        assert!(x.reshape(&[5]).is_err() && x.narrow(1, 2, 2).is_err() && x.matmul(&x).is_err());
        assert!(x.add(&TraceTensor::input("y", &[2, 2])).is_err());
        assert_eq!(x.add(&TraceTensor::input("y", &[4, 1, 3])).expect("broadcasts").shape(), [4, 2, 3]);
    }
}
