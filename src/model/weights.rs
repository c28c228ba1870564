//! A model's weights by name, and the one way to multiply by them.
//!
//! Low-rank adapters and quantization are properties of the weights, not of model code: every matrix
//! product goes through [`Weights::linear`].
//!
//! What computes in lower precision is rounded once, when it is taken, but for what is in training: that stays in 32 bits, and
//! is rounded where it multiplies. What is small and adds up over many tokens is not rounded then either: gains, biases,
//! DoRA's magnitudes and lengths.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backend::arrays::{Array, Arrays, Values};
use crate::backend::floats;
use crate::backend::qmatrix::QMatrix;
use crate::backend::rng::Rng;
use crate::backend::{BackendError, Params, Precision, Result, Tensor, Texts};
use crate::failure::Failure;

/// Named weights.
pub struct Weights<T: Tensor> {
    tensors: BTreeMap<String, T>,
    /// Matrices that stay quantized.
    codes: BTreeMap<String, Arc<QMatrix>>,
    /// Of what is given on from product to product.
    precision: Precision,
    lora: Option<Lora<T>>,
    /// What modules were given since it was asked for, in the order of the calls.
    noted: Option<RefCell<Vec<(String, T)>>>,
}

/// Low-rank updates in training: `y += scale * B(A(dropout(x)))`. Hu et al., 2021.
struct Lora<T: Tensor> {
    /// `MODULE.lora_A.weight` [rank, in] and `MODULE.lora_B.weight` [out, rank]; `MODULE.lora_magnitude_vector` [out] in
    /// DoRA.
    params: Params<T>,
    /// alpha / rank.
    scale: f64,
    /// Dropout on the adapter's input, and its random numbers; none in evaluation.
    dropout: Option<(f32, RefCell<Rng>)>,
}

impl<T: Tensor> Weights<T> {
    /// Uploads the arrays, each as it is (packed words are unpacked before, see [`super::quantized`]).
    pub fn new(arrays: &Arrays) -> Result<Self> {
        let (mut tensors, mut codes) = (BTreeMap::new(), BTreeMap::new());
        for (name, array) in arrays {
            match &array.values {
                Values::F32(values) => {
                    drop(tensors.insert(name.clone(), T::from_f32(values, &array.shape)?.named(name)))
                }
                Values::Codes(matrix) => drop(codes.insert(name.clone(), matrix.clone())),
                Values::U32(_) | Values::I8(_) => {}
            }
        }
        Ok(Self { tensors, codes, precision: Precision::F32, lora: None, noted: None })
    }

    /// Uploads the arrays to compute with them in a precision, and empties them on the way, so that there are not two of each.
    pub fn take(arrays: &mut Arrays, precision: Precision) -> Result<Self> {
        let mut all = Self { precision, ..Self::new(&Arrays::new())? };
        while let Some(first) = arrays.pop_first() {
            let Self { tensors, mut codes, .. } = Self::new(&Arrays::from([first]))?;
            for (name, tensor) in tensors {
                all.tensors.insert(name, tensor.cast(precision)?.settled()?);
            }
            all.codes.append(&mut codes);
        }
        Ok(all)
    }

    /// How many weights are in the tensors of these names, and the bytes in which they lie in memory.
    pub fn size(&self, of: impl Fn(&str) -> bool) -> (u64, u64) {
        let float = size_of::<f32>() as u64;
        let tensors = self.tensors.iter().map(|(name, tensor)| {
            let count = tensor.shape().iter().product::<usize>() as u64;
            (name, count, float * count)
        });
        let codes = self.codes.iter().map(|(name, matrix)| {
            let count = (matrix.rows() * matrix.inner()) as u64;
            (name, count, matrix.bytes() as u64)
        });
        let counted = tensors.chain(codes).filter(|(name, ..)| of(name));
        counted.fold((0, 0), |(all, bytes), (_, count, size)| (all + count, bytes + size))
    }

    /// The weights in floats whose names begin so.
    pub fn floats(&self, prefix: &str) -> Result<Arrays> {
        let own = self.tensors.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        own.map(|(name, tensor)| Ok((name.clone(), Array::f32(&tensor.shape(), tensor.to_f32()?)))).collect()
    }

    /// Drops those weights.
    pub fn forget(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
    }

    /// Puts values in training into their places: low-rank updates on their modules, whole weights instead of the old.
    pub fn put(&mut self, params: &Params<T>, scale: f64, dropout: Option<(f32, RefCell<Rng>)>) {
        let own = params.iter().map(|(name, tensor)| (name.clone(), tensor.clone()));
        let (lora, whole): (Params<T>, Params<T>) = own.partition(|(name, _)| name.contains(".lora_"));
        self.codes.retain(|name, _| !whole.contains_key(name));
        self.tensors.extend(whole);
        self.lora = (!lora.is_empty()).then_some(Lora { params: lora, scale, dropout });
    }

    /// Where the random numbers of the updates' dropout are now; none where nothing is dropped.
    pub fn noise(&self) -> Option<Rng> {
        let (_, rng) = self.lora.as_ref()?.dropout.as_ref()?;
        Some(rng.borrow().clone())
    }

    /// Whether it is noted from now on what modules are given: see [`Self::noted`].
    pub fn note(&mut self, yes: bool) {
        self.noted = yes.then(RefCell::default);
    }

    /// What [`Self::linear`] was called with since the last time, by the modules' names.
    pub fn noted(&self) -> Vec<(String, T)> {
        self.noted.as_ref().map(RefCell::take).unwrap_or_default()
    }

    /// A weight by name.
    pub fn get(&self, name: &str) -> Result<&T> {
        self.tensors.get(name).ok_or_else(|| BackendError::Library(format!("the model has no weight `{name}`")))
    }

    /// Values as they are given on from product to product: in the weights' precision.
    pub fn rounded(&self, tensor: &T) -> Result<T> {
        tensor.cast(self.precision)
    }

    /// Replaces a weight.
    pub fn set(&mut self, name: &str, tensor: T) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// Rows of a matrix by their numbers: [ids, width].
    pub fn rows(&self, name: &str, ids: &[u32]) -> Result<T> {
        let Some(matrix) = self.codes.get(&format!("{name}.weight")) else {
            // Rounded after: rows that are taken often add up in 32 bits.
            return self.rounded(&self.plain(name)?.take_rows(ids)?);
        };
        if let Some(id) = ids.iter().find(|id| **id as usize >= matrix.rows()) {
            return Err(BackendError::Library(format!("row {id} of {}", matrix.rows())));
        }
        let values: Vec<f32> = ids.iter().flat_map(|id| matrix.row(*id as usize)).collect();
        self.rounded(&T::from_f32(&values, &[ids.len(), matrix.inner()])?)
    }

    /// Rows of a matrix by the token ids of texts: [texts, longest, width].
    pub fn embed(&self, name: &str, texts: &Texts) -> Result<T> {
        // Rounded after: rows that are taken often add up in 32 bits.
        match self.codes.get(&format!("{name}.weight")) {
            Some(table) => self.rounded(&T::embed_quantized(table, texts)?.named(name)),
            None => self.rounded(&self.plain(name)?.embed(texts)?),
        }
    }

    /// [`Tensor::cross_entropy`] by the module `name`.
    pub fn cross_entropy(&self, name: &str, x: &T, targets: &[u32]) -> Result<T> {
        x.cross_entropy(&self.matrix(name)?, targets)
    }

    /// `x W^T + bias`, without an adapter.
    fn product(&self, name: &str, x: &T) -> Result<T> {
        let bias = self.tensors.get(&format!("{name}.bias"));
        let codes = self.codes.get(&format!("{name}.weight"));
        let y = match (codes.map(|matrix| (matrix, &**matrix)), self.precision) {
            (None, Precision::F32) => return x.linear(&self.matrix(name)?, bias),
            // Codes stand for floats, which are rounded like any; whose product rounds its inputs takes them as they are.
            (None, Precision::Bf16) | (Some((_, QMatrix::Groups(_))), Precision::Bf16) => {
                x.linear(&self.matrix(name)?, None)?
            }
            (Some((matrix, _)), _) => self.rounded(&x.cast(Precision::F32)?.linear_quantized(matrix)?.named(name))?,
        };
        match bias {
            Some(bias) => self.rounded(&y.add(bias)?),
            None => Ok(y),
        }
    }

    /// A matrix as it multiplies.
    fn matrix(&self, name: &str) -> Result<T> {
        if self.codes.contains_key(&format!("{name}.weight")) {
            // Let go of at once: the 32-bit floats of all matrices would wait for the pass.
            return self.rounded(&self.plain(name)?)?.settled();
        }
        self.rounded(&self.plain(name)?)
    }

    /// A matrix as it is kept, its codes expanded.
    fn plain(&self, name: &str) -> Result<T> {
        if let Some(matrix) = self.codes.get(&format!("{name}.weight")) {
            return T::from_f32(&matrix.expand(), &[matrix.rows(), matrix.inner()]);
        }
        let weight = self.get(&format!("{name}.weight"))?;
        match weight.shape()[..] {
            // A 1 x 1 convolution is a matrix.
            [out, inner, 1, 1] => weight.reshape(&[out, inner]),
            _ => Ok(weight.clone()),
        }
    }

    /// [`Self::linear`], then `clamp(x * scale + shift, low, high)`; in one pass where nothing is trained.
    pub fn linear_scale_shift(&self, name: &str, x: &T, (scale, shift): (&T, &T), low: f32, high: f32) -> Result<T> {
        let adapted = self.lora.as_ref().is_some_and(|l| l.params.contains_key(&format!("{name}.lora_A.weight")));
        let is_plain = !adapted && !self.codes.contains_key(&format!("{name}.weight"));
        if !is_plain || self.tensors.contains_key(&format!("{name}.bias")) {
            return self.linear(name, x)?.scale_shift(scale, shift, low, high);
        }
        x.linear_scale_shift(&self.matrix(name)?, scale, shift, low, high)
    }

    /// `x [.., in] -> [.., out]` through the module `name`: its weight, bias and adapter.
    pub fn linear(&self, name: &str, x: &T) -> Result<T> {
        if let Some(noted) = &self.noted {
            noted.borrow_mut().push((name.to_owned(), x.clone()));
        }
        let Some((lora, a)) =
            self.lora.as_ref().and_then(|l| Some((l, l.params.get(&format!("{name}.lora_A.weight"))?)))
        else {
            return self.product(name, x);
        };
        let b = &lora.params[&format!("{name}.lora_B.weight")];
        let dropped = match &lora.dropout {
            Some((p, rng)) if *p > 0.0 => {
                let shape = x.shape();
                let mut mask = rng.borrow_mut().dropout(*p, shape.iter().product());
                Some(match self.precision {
                    Precision::F32 => x.mul(&T::from_f32(&mask, &shape)?)?,
                    Precision::Bf16 => {
                        // Ones are not rounded, as the factor of what is kept would be.
                        mask.iter_mut().for_each(|factor| *factor = factor.min(1.0));
                        let mask = self.rounded(&T::from_f32(&mask, &shape)?)?;
                        x.mul(&mask)?.affine(1.0 / (1.0 - f64::from(*p)), 0.0)?
                    }
                })
            }
            _ => None,
        };
        let (a, b) = (self.rounded(a)?, self.rounded(b)?);
        let update = dropped.as_ref().unwrap_or(x).linear(&a, None)?.linear(&b, None)?.affine(lora.scale, 0.0)?;
        let Some(magnitude) = lora.params.get(&format!("{name}.{MAGNITUDE}")) else {
            return self.product(name, x)?.add(&update);
        };
        let (weight, bias) = (self.matrix(name)?, self.tensors.get(&format!("{name}.bias")));
        let gain = magnitude.div(&row_norms(&weight, &a, &b, lora.scale)?)?;
        let y = match &dropped {
            None => x.linear(&weight, None)?.add(&update)?.mul(&gain)?,
            // As PEFT has it: what the magnitude changes of the weight's own product is dropped from as well.
            Some(dropped) => {
                let own = dropped.linear(&weight, None)?;
                x.linear(&weight, None)?.sub(&own)?.add(&own.add(&update)?.mul(&gain)?)?
            }
        };
        match bias {
            Some(bias) => self.rounded(&y.add(bias)?),
            None => self.rounded(&y),
        }
    }
}

/// The lengths of the rows of `W + scale * B A`, in 32 bits: `[out]`. A constant to the gradient: Liu et al., "DoRA:
/// weight-decomposed low-rank adaptation", 2024, section 4.3.
fn row_norms<T: Tensor>(weight: &T, a: &T, b: &T, scale: f64) -> Result<T> {
    let [weight, a, b] = [weight, a, b].map(|t| t.cast(Precision::F32));
    let (weight, a, b) = (weight?, a?, b?);
    let update = b.detach().linear(&a.detach().swap_axes(0, 1)?, None)?.affine(scale, 0.0)?;
    let adapted = weight.detach().add(&update)?;
    let out = adapted.shape()[0];
    // A row of zeros keeps its gain finite.
    Ok(adapted.mul(&adapted)?.sum(1)?.affine(1.0, 1e-30)?.sqrt()?.reshape(&[out])?.detach())
}

/// The last part of the name of DoRA's magnitudes: before any training, the lengths of a matrix's rows.
pub const MAGNITUDE: &str = "lora_magnitude_vector";

/// Adds low-rank updates to the weights they belong to: `W + scale * B A`, in DoRA each row then brought to its
/// magnitude. The adapter has `MODULE.lora_A.weight`, `MODULE.lora_B.weight` and in DoRA `MODULE.lora_magnitude_vector`.
pub fn merge(base: &mut Arrays, adapter: &Arrays, scale: f32) -> std::result::Result<(), Failure> {
    for (name, a) in adapter {
        let Some(module) = name.strip_suffix(".lora_A.weight") else {
            // A module that was trained whole stands in its own right.
            if !name.ends_with(".lora_B.weight") && !name.ends_with(MAGNITUDE) {
                base.insert(name.clone(), a.clone());
            }
            continue;
        };
        let weight_name = format!("{module}.weight");
        let (Some(b), Some(weight)) = (adapter.get(&format!("{module}.lora_B.weight")), base.get_mut(&weight_name))
        else {
            return Err(Failure::target(format!("the adapter is for `{module}`, which its base does not have"))
                .help("use the base that the adapter was trained on"));
        };
        let (&[rank, inner], &[out, rank_b]) = (&a.shape[..], &b.shape[..]) else {
            return Err(Failure::target(format!("the adapter's matrices for `{module}` are not matrices")));
        };
        if let Values::Codes(matrix) = &weight.values {
            weight.values = Values::F32(matrix.expand());
        }
        let Values::F32(values) = &mut weight.values else {
            return Err(Failure::target(format!("`{module}` is quantized; merge into the model it was made from")));
        };
        if values.len() != out * inner || rank != rank_b {
            return Err(Failure::target(format!("the adapter's shapes do not fit `{module}`")));
        }
        floats::add_low_rank(values, [a.floats(), b.floats()], rank, inner, scale);
        let Some(magnitude) = adapter.get(&format!("{module}.{MAGNITUDE}")) else { continue };
        if magnitude.floats().len() != out {
            return Err(Failure::target(format!("the adapter's magnitudes do not fit `{module}`")));
        }
        floats::set_lengths(values, inner, magnitude.floats());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CandleTensor;

    fn random(shape: &[usize], name: &str) -> Array {
        let mut rng = Rng::new(5, name);
        Array::f32(shape, (0..shape.iter().product()).map(|_| rng.normal()).collect())
    }

    fn tensors(arrays: &Arrays) -> Params<CandleTensor> {
        let tensor = |a: &Array| CandleTensor::from_f32(a.floats(), &a.shape).expect("fits");
        arrays.iter().map(|(name, array)| (name.clone(), tensor(array))).collect()
    }

    #[test]
    fn weights_are_taken_and_given_back() {
        let mut arrays = Arrays::from(["a.b", "a.c", "ab"].map(|name| (name.to_owned(), random(&[2, 3], name))));
        let before = arrays.clone();
        let mut weights = Weights::<CandleTensor>::take(&mut arrays, Precision::F32).expect("uploads");
        assert!(arrays.is_empty() && weights.floats("").expect("values") == before);
        let some = weights.floats("a.").expect("values");
        assert!(some.keys().eq(["a.b", "a.c"]) && some["a.b"] == before["a.b"]);
        weights.forget("a.");
        assert!(weights.floats("").expect("values").keys().eq(["ab"]));
    }

    #[test]
    fn a_module_with_its_updates_computes_what_the_merged_one_does() {
        let base =
            Arrays::from([("p.weight".to_owned(), random(&[6, 5], "w")), ("p.bias".to_owned(), random(&[6], "bias"))]);
        let lora = Arrays::from([
            ("p.lora_A.weight".to_owned(), random(&[2, 5], "a")),
            ("p.lora_B.weight".to_owned(), random(&[6, 2], "b")),
        ]);
        let dora = Arrays::from_iter(lora.clone().into_iter().chain([(format!("p.{MAGNITUDE}"), random(&[6], "m"))]));
        let x = CandleTensor::from_f32(random(&[4, 5], "x").floats(), &[4, 5]).expect("fits");
        let mut last = Vec::new();
        for (adapter, gained) in [(lora, 2), (dora, 3)] {
            let mut weights = Weights::<CandleTensor>::new(&base).expect("uploads");
            let (_, grads) = CandleTensor::value_and_grad(&tensors(&adapter), &mut |p| {
                weights.put(p, 0.5, None);
                weights.linear("p", &x)?.sum_all()
            })
            .expect("computes");
            assert_eq!(grads.len(), gained);
            let found = weights.linear("p", &x).expect("computes").to_f32().expect("values");
            let mut merged = base.clone();
            merge(&mut merged, &adapter, 0.5).expect("fits");
            let merged = Weights::<CandleTensor>::new(&merged).expect("uploads");
            let merged = merged.linear("p", &x).expect("computes").to_f32().expect("values");
            assert!(found.iter().zip(&merged).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {merged:?}");
            assert_ne!(found, last);
            last = found;
        }
    }

    #[cfg(feature = "mlx")]
    #[test]
    fn in_lower_precision_a_module_computes_nearly_the_same_and_its_gradients_are_of_32_bits() {
        use crate::backend::MlxTensor;
        use crate::backend::int8::{Bytes, Int8};
        use crate::backend::qmatrix::Groups;
        let codes = |of: i32| (0..6 * 32).map(move |i| i * 7 % of);
        let scales: Vec<f32> = (1..=6).map(|row| 0.02 * row as f32).collect();
        let groups: Vec<u8> = codes(16).map(|code| code as u8).collect();
        let groups = Groups::new(6, 32, 32, 4, &groups, scales.clone(), scales.iter().map(|s| s * -7.3).collect());
        let bytes = Int8 { rows: 6, inner: 32, codes: codes(255).map(|code| (code - 127) as i8).collect(), scales };
        let matrices = [random(&[6, 32], "w"), Array::codes(groups), Array::codes(Bytes::new(bytes))];
        let named = |parts: &[(&str, &[usize])]| -> Arrays {
            parts.iter().map(|(part, shape)| (format!("p.{part}"), random(shape, part))).collect()
        };
        let lora: [(&str, &[usize]); 2] = [("lora_A.weight", &[2, 32]), ("lora_B.weight", &[6, 2])];
        let dora = [lora[0], lora[1], (MAGNITUDE, &[6])];
        let x = MlxTensor::from_f32(random(&[40, 32], "x").floats(), &[40, 32]).expect("fits");
        for (n, matrix) in matrices.into_iter().enumerate() {
            let base = Arrays::from([("p.weight".to_owned(), matrix), ("p.bias".to_owned(), random(&[6], "bias"))]);
            for trained in [named(&lora), named(&dora), named(&[("weight", &[6, 32]), ("bias", &[6])])] {
                let tensor = |a: &Array| MlxTensor::from_f32(a.floats(), &a.shape).expect("fits");
                let params: Params<MlxTensor> = trained.iter().map(|(name, a)| (name.clone(), tensor(a))).collect();
                for dropout in [0.0, 0.3] {
                    let run = |precision: Precision| {
                        let mut weights = Weights::<MlxTensor>::take(&mut base.clone(), precision).expect("uploads");
                        let x = x.cast(precision).expect("MLX has it");
                        let mut given = Vec::new();
                        let (_, grads) = MlxTensor::value_and_grad(&params, &mut |p| {
                            weights.put(p, 0.5, Some((dropout, RefCell::new(Rng::new(3, "dropped")))));
                            let y = weights.linear("p", &x)?;
                            given = y.to_f32()?;
                            y.mul(&y)?.sum_all()
                        })
                        .expect("computes");
                        let all = grads.iter().map(|(name, grad)| (name.as_str(), grad.to_f32().expect("values")));
                        let all: Vec<(&str, Vec<f32>)> = all.chain([("y", given)]).collect();
                        all.into_iter().map(|(name, values)| (name.to_owned(), values)).collect::<Vec<_>>()
                    };
                    for ((name, ours), (_, theirs)) in run(Precision::F32).iter().zip(&run(Precision::Bf16)) {
                        let top = ours.iter().fold(0.0f32, |top, v| top.max(v.abs()));
                        let far = ours.iter().zip(theirs).fold(0.0f32, |far, (a, b)| far.max((a - b).abs()));
                        assert!(far > 0.0 && far < 0.02 * top, "matrix {n}, dropout {dropout}, {name}: {far} of {top}");
                        let coarse = |v: &f32| v.to_bits() & 0xffff == 0;
                        assert_eq!(theirs.iter().all(coarse), name == "y" || name.ends_with("weight"), "{name}");
                    }
                }
            }
        }
    }
}
