//! The tensor interface and what stands behind it.
//!
//! Model code is written once, against [`Tensor`]; candle implements it here and, with the feature `mlx`, MLX behind
//! the same names. Which one runs is a [`Backend`], and `on_backend!` calls a function that is generic over the tensor
//! with that one's. Values go in and come out as 32-bit floats, row-major, whatever the [`Precision`] between; binary
//! operations broadcast as in numpy, and of two precisions give the higher. Every operation that a trainable parameter
//! passes through has a gradient: [`Tensor::value_and_grad`] refuses a parameter that got none, so a silently lost one
//! cannot pass for training.

pub mod affine;
pub mod arrays;
pub mod attention;
pub mod awq;
pub mod blocks;
mod candle;
pub mod cross_entropy;
pub mod floats;
pub mod gemm;
pub mod gguf;
pub mod gptq;
pub mod gram;
pub mod int8;
pub mod kernels;
#[cfg(feature = "mlx")]
mod mlx;
pub mod packed;
pub mod palette;
pub mod pixels;
pub mod qmatrix;
pub mod rng;
pub mod simd;
pub mod smooth;
pub mod spin;
pub mod stream;
pub mod texts;
pub mod trace;

use std::collections::BTreeMap;

pub use attention::Scope;
pub use candle::CandleTensor;
pub use kernels::Window;
#[cfg(feature = "mlx")]
pub use mlx::MlxTensor;
use qmatrix::QMatrix;
pub use texts::{Lengths, Texts};

use serde::{Deserialize, Serialize};

/// What a process that computes is started with. candle's own pool of threads waits by
/// spinning: beside ours that was half of a training step's CPU time. What is left to candle is small. And memory
/// that was given back is kept for the next step: else a sixth of the time goes into zeroing pages. The BLAS under MLX
/// on Linux adds up in another order with another number of threads.
pub const CHILD_ENVIRONMENT: &[(&str, &str)] =
    &[("CANDLE_NUM_THREADS", "1"), ("MIMALLOC_PURGE_DELAY", "-1"), ("OPENBLAS_NUM_THREADS", "1")];

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// candle, with kernels of our own, on the CPU. In every build.
    Candle,
    /// Apple's MLX. With the feature `mlx`.
    Mlx,
}

/// In what floats something is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// The upper 16 of them: as wide a range, 8 bits of precision. MLX has it.
    Bf16,
}

impl Precision {
    /// Every precision's name.
    pub const NAMES: &[&str] = &["f32", "bf16"];

    /// Its name in recipes and artifacts.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

/// A backend for an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Which.
    pub backend: Backend,
    /// The recipe says so: no other may take its place.
    pub is_pinned: bool,
}

impl Choice {
    /// Of a target: what its recipe says, or what was asked for.
    pub fn of(pinned: Option<&str>, asked: Backend) -> Self {
        let backend = pinned.and_then(Backend::by_name);
        Self { backend: backend.unwrap_or(asked), is_pinned: backend.is_some() }
    }
}

/// Every backend's name.
pub const NAMES: &[&str] = &["candle", "mlx"];

impl Backend {
    /// Its name in recipes, records and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Candle => "candle",
            Backend::Mlx => "mlx",
        }
    }

    /// The backend of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Backend::Candle, Backend::Mlx].into_iter().find(|backend| backend.name() == name)
    }

    /// Whether it is in this build.
    pub fn is_built_in(self) -> bool {
        self == Backend::Candle || cfg!(feature = "mlx")
    }

    /// Whether it computes in a precision. On a processor candle is quickest in 32 bits: to round to fewer and go on in those
    /// would be a pretence.
    pub fn has(self, precision: Precision) -> bool {
        precision == Precision::F32 || self == Backend::Mlx
    }

    /// What is taken where nobody says: MLX on Apple Silicon. Elsewhere MLX has no GPU and is the slower one.
    pub fn best() -> Self {
        let apple = cfg!(all(target_os = "macos", target_arch = "aarch64"));
        if apple && Backend::Mlx.is_built_in() { Backend::Mlx } else { Backend::Candle }
    }

    /// What it is and runs on, once it has been found to work.
    pub fn describe(self) -> String {
        match self {
            Backend::Candle => "candle 0.11 with effai's own kernels, on the CPU, 32-bit floats".into(),
            #[cfg(feature = "mlx")]
            Backend::Mlx => format!("MLX by mlx-rs 0.33, on {}, 32-bit floats; bf16 where asked for", mlx::device()),
            #[cfg(not(feature = "mlx"))]
            Backend::Mlx => "MLX".into(),
        }
    }

    /// Finds out, by computing, whether it works here.
    pub fn probe(self) -> std::result::Result<(), ProbeError> {
        match self {
            Backend::Candle => Ok(()),
            #[cfg(feature = "mlx")]
            Backend::Mlx => mlx::probe().map_err(ProbeError::DoesNotStart),
            #[cfg(not(feature = "mlx"))]
            Backend::Mlx => Err(ProbeError::NotBuiltIn),
        }
    }
}

/// A backend that cannot be used here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The library is there and does not compute.
    #[error("MLX does not start: {0}")]
    DoesNotStart(BackendError),
    /// The feature `mlx` is off.
    #[error("this effai was built without MLX")]
    NotBuiltIn,
}

impl ProbeError {
    /// The next step.
    pub fn help(&self) -> &'static str {
        match self {
            Self::DoesNotStart(_) => "`effai doctor` says what there is; or take `--backend candle`",
            Self::NotBuiltIn => HOW_TO_BUILD_MLX,
        }
    }
}

/// The next step where MLX is wanted and not there.
pub const HOW_TO_BUILD_MLX: &str = "build it with `--features mlx`: docs/backends.md says what that needs";

/// Calls a function that is generic over the tensor on a [`Backend`]: `on_backend!(backend, train(cx, &fields))`.
#[macro_export]
macro_rules! on_backend {
    ($backend:expr, $run:ident($($argument:expr),* $(,)?)) => {
        match $backend {
            $crate::Backend::Candle => $run::<$crate::CandleTensor>($($argument),*),
            #[cfg(feature = "mlx")]
            $crate::Backend::Mlx => $run::<$crate::MlxTensor>($($argument),*),
            #[cfg(not(feature = "mlx"))]
            $crate::Backend::Mlx => unreachable!("what is not in this build does not start"),
        }
    };
}

/// Named tensors, in the order of their names.
pub type Params<T> = BTreeMap<String, T>;

/// An operation that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The library's complaint: shapes that do not fit, mostly.
    #[error("{0}")]
    Library(String),
    /// A parameter that the loss does not depend on.
    #[error("the parameter `{0}` got no gradient")]
    NoGradient(String),
}

/// What an operation gives.
pub type Result<T> = std::result::Result<T, BackendError>;

/// Where each of some texts begins that lie one after the other, and its length.
pub fn segments(lengths: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    let mut next = 0;
    lengths.iter().map(move |len| {
        next += len;
        (next - len, *len)
    })
}

/// A tensor of some backend.
pub trait Tensor: Clone + Sized + 'static {
    /// From values in row-major order.
    fn from_f32(values: &[f32], shape: &[usize]) -> Result<Self>;
    /// All values, in row-major order.
    fn to_f32(&self) -> Result<Vec<f32>>;
    /// The same values, rounded to a precision; an error where the backend does not have it. The gradient is cast back.
    ///
    /// What a language model computes with takes either and gives what it was given; [`Self::cross_entropy`] gives 32-bit
    /// floats.
    fn cast(&self, precision: Precision) -> Result<Self>;
    /// The same values, computed now and cut off from gradients: a lazy backend lets go of what they came from.
    fn settled(&self) -> Result<Self>;
    /// The length of each axis.
    fn shape(&self) -> Vec<usize>;
    /// The same tensor, called so by who tells of it: most have no use for a name.
    #[must_use]
    fn named(self, _name: &str) -> Self {
        self
    }

    /// The same values in another shape.
    fn reshape(&self, shape: &[usize]) -> Result<Self>;
    /// Two axes exchanged.
    fn swap_axes(&self, a: usize, b: usize) -> Result<Self>;
    /// `len` entries of an axis from `start`.
    fn narrow(&self, axis: usize, start: usize, len: usize) -> Result<Self>;
    /// Tensors one after another along an axis.
    fn concat(parts: &[Self], axis: usize) -> Result<Self>;
    /// Rows of [rows, ...] by number: -> [ids, ...].
    fn take_rows(&self, ids: &[u32]) -> Result<Self>;
    /// A table's rows by the token ids of texts: [rows, ...] -> [texts, longest, ...].
    fn embed(&self, texts: &Texts) -> Result<Self> {
        let shape = [&[texts.count(), texts.longest()], &self.shape()[1..]].concat();
        self.take_rows(&texts.padded())?.reshape(&shape)
    }
    /// [`Self::embed`] by a table that stays quantized.
    fn embed_quantized(table: &std::sync::Arc<QMatrix>, texts: &Texts) -> Result<Self> {
        let ids = texts.padded();
        if let Some(id) = ids.iter().find(|id| **id as usize >= table.rows()) {
            return Err(BackendError::Library(format!("row {id} of {}", table.rows())));
        }
        let values: Vec<f32> = ids.iter().flat_map(|id| table.row(*id as usize)).collect();
        Self::from_f32(&values, &[texts.count(), texts.longest(), table.inner()])
    }
    /// The marked token of each text: [texts, longest, width] -> [texts, width].
    fn take_tokens(&self, texts: &Texts, mark: texts::Mark) -> Result<Self> {
        let width = self.shape().last().copied().unwrap_or(1);
        self.reshape(&[texts.count() * texts.longest(), width])?.take_rows(&texts.places(mark)?)
    }
    /// The average of each text's tokens, without padding: [texts, longest, width] -> [texts, width].
    fn mean_tokens(&self, lengths: &Lengths) -> Result<Self> {
        let shape = self.shape();
        let &[texts, longest, width] = &shape[..] else {
            return Err(BackendError::Library(format!("averages of tokens of a tensor {shape:?}")));
        };
        let keep: Vec<f32> =
            lengths.iter().flat_map(|len| (0..longest).map(move |at| f32::from(u8::from(at < *len)))).collect();
        let counts: Vec<f32> = lengths.iter().map(|len| (*len).max(1) as f32).collect();
        let sums = self.mul(&Self::from_f32(&keep, &[texts, longest, 1])?)?.sum(1)?.reshape(&[texts, width])?;
        sums.div(&Self::from_f32(&counts, &[texts, 1])?)
    }
    /// One row as many times as are asked for: [1, ...] -> [times, ...].
    fn repeat(&self, times: usize) -> Result<Self> {
        self.take_rows(&vec![0; times])
    }

    /// Sum, broadcast.
    fn add(&self, other: &Self) -> Result<Self>;
    /// Difference, broadcast.
    fn sub(&self, other: &Self) -> Result<Self>;
    /// Product, broadcast.
    fn mul(&self, other: &Self) -> Result<Self>;
    /// Quotient, broadcast.
    fn div(&self, other: &Self) -> Result<Self>;
    /// `x * factor + offset`.
    fn affine(&self, factor: f64, offset: f64) -> Result<Self>;
    /// e to the x.
    fn exp(&self) -> Result<Self>;
    /// Natural logarithm.
    fn log(&self) -> Result<Self>;
    /// Square root.
    fn sqrt(&self) -> Result<Self>;
    /// GELU with the error function.
    fn gelu(&self) -> Result<Self>;
    /// GELU by a sigmoid, `x * sigmoid(1.702 x)`.
    fn quick_gelu(&self) -> Result<Self>;
    /// Sum over an axis, which stays with length 1.
    fn sum(&self, axis: usize) -> Result<Self>;
    /// Sum of everything: [].
    fn sum_all(&self) -> Result<Self>;

    /// [.., m, k] x [.., k, n] -> [.., m, n]; the leading axes are equal.
    fn matmul(&self, other: &Self) -> Result<Self>;
    /// `x [.., in], weight [out, in], bias [out] -> [.., out]`
    fn linear(&self, weight: &Self, bias: Option<&Self>) -> Result<Self>;
    /// [`Self::linear`] by a matrix that stays quantized: `x [.., in] -> [.., out]`; the gradient is by x alone.
    fn linear_quantized(&self, weight: &std::sync::Arc<QMatrix>) -> Result<Self> {
        let (out, inner) = (weight.rows(), weight.inner());
        let expanded = Self::from_f32(&weight.expand(), &[out, inner])?;
        match **weight {
            QMatrix::Groups(_) => self.linear(&expanded, None),
            // Inputs are rounded to bytes: effai's own product, whose error is a constant to the gradient.
            QMatrix::Bytes(_) => {
                let mut shape = self.shape();
                if let Some(last) = shape.last_mut() {
                    *last = out;
                }
                let product = Self::from_f32(&weight.product(&self.to_f32()?, gemm::Then::Nothing), &shape)?;
                let plain = self.linear(&expanded, None)?;
                plain.add(&product.sub(&plain.detach())?.detach())
            }
        }
    }
    /// Softmax over the last axis.
    fn softmax(&self) -> Result<Self>;
    /// Layer norm over the last axis; weight and bias are of its length.
    fn layer_norm(&self, weight: &Self, bias: &Self, eps: f32) -> Result<Self>;

    /// Root-mean-square norm over the last axis; the weight is of its length.
    fn rms_norm(&self, weight: &Self, eps: f32) -> Result<Self>;
    /// Rotary position embedding of [.., length, width], whose first row is at `offset`: see [`kernels::rope`].
    fn rope(&self, offset: usize, base: f32) -> Result<Self>;
    /// `silu(self) * up`, both of one shape.
    fn swiglu(&self, up: &Self) -> Result<Self>;
    /// Attention: q [n, heads, queries, d], k and v [n, kv heads, keys, d] -> as q; groups of heads share a head of keys.
    fn attention(q: &Self, k: &Self, v: &Self, scope: &Scope, scale: f32) -> Result<Self>;
    /// [`Self::rope`] of texts that lie one after the other along [.., tokens, width], each from position 0.
    fn rope_packed(&self, lengths: &[usize], base: f32) -> Result<Self> {
        let axis = self.shape().len() - 2;
        let parts = segments(lengths).map(|(start, len)| self.narrow(axis, start, len)?.rope(0, base));
        Self::concat(&parts.collect::<Result<Vec<_>>>()?, axis)
    }
    /// Causal [`Self::attention`] of texts that lie one after the other: q [1, heads, tokens, d], k and v [1, kv heads,
    /// tokens, d] -> as q. None sees another.
    fn attention_packed(q: &Self, k: &Self, v: &Self, lengths: &[usize], scale: f32) -> Result<Self> {
        let part = |(start, len)| {
            let [q, k, v] = [q, k, v].map(|t| t.narrow(2, start, len));
            Self::attention(&q?, &k?, &v?, &Scope { lengths: vec![len].into(), causal: true }, scale)
        };
        Self::concat(&segments(lengths).map(part).collect::<Result<Vec<_>>>()?, 2)
    }
    /// The negative log-probability of each row's target: rows `[n, d]`, matrix `[vocabulary, d]`, targets `[n]` -> `[n]`.
    fn cross_entropy(&self, matrix: &Self, targets: &[u32]) -> Result<Self>;

    /// Depth-wise convolution: x [n, h, w, c], weight [k, k, c] -> [n, out_h, out_w, c].
    fn depthwise(&self, weight: &Self, window: Window) -> Result<Self>;
    /// Patches of x [n, h, w, c] -> [n * out_h * out_w, k * k * c]; no gradient, and an
    /// error where one would be lost.
    fn patches(&self, window: Window) -> Result<Self>;
    /// `clamp(x * scale + shift, low, high)` along the last axis; scale and shift get no gradient, and
    /// ones that are trained are an error.
    fn scale_shift(&self, scale: &Self, shift: &Self, low: f32, high: f32) -> Result<Self>;

    /// [`Self::linear`] without a bias, then [`Self::scale_shift`]: the same values, in one pass where nothing is trained.
    fn linear_scale_shift(&self, weight: &Self, scale: &Self, shift: &Self, low: f32, high: f32) -> Result<Self> {
        self.linear(weight, None)?.scale_shift(scale, shift, low, high)
    }
    /// [`Self::depthwise`], then [`Self::scale_shift`]: the same values, in one pass where nothing is trained.
    fn depthwise_scale_shift(
        &self,
        weight: &Self,
        window: Window,
        scale: &Self,
        shift: &Self,
        low: f32,
        high: f32,
    ) -> Result<Self> {
        self.depthwise(weight, window)?.scale_shift(scale, shift, low, high)
    }

    /// The same values, cut off from gradients.
    fn detach(&self) -> Self;
    /// The value of a scalar function of named parameters, and its gradient by each of them.
    fn value_and_grad(
        params: &Params<Self>,
        loss: &mut dyn FnMut(&Params<Self>) -> Result<Self>,
    ) -> Result<(f32, Params<Self>)>;

    /// Logarithm of the softmax over the last axis.
    fn log_softmax(&self) -> Result<Self> {
        let shape = self.shape();
        let last = shape.len() - 1;
        // The row's maximum is a constant to the gradient: shifting by it changes nothing.
        let values = self.to_f32()?;
        let tops: Vec<f32> = values
            .chunks(shape[last].max(1))
            .map(|row| row.iter().copied().fold(f32::NEG_INFINITY, f32::max))
            .collect();
        let mut reduced = shape;
        reduced[last] = 1;
        let shifted = self.sub(&Self::from_f32(&tops, &reduced)?)?;
        shifted.sub(&shifted.exp()?.sum(last)?.log()?)
    }

    /// Rows of length 1 along the last axis.
    fn normalize(&self) -> Result<Self> {
        let last = self.shape().len() - 1;
        self.div(&self.mul(self)?.sum(last)?.affine(1.0, 1e-12)?.sqrt()?)
    }

    /// One value of a scalar.
    fn scalar(&self) -> Result<f32> {
        Ok(self.to_f32()?.first().copied().unwrap_or(f32::NAN))
    }
}
