//! A model's weights by name, and the one way to multiply by them.
//!
//! Low-rank adapters and quantization are properties of the weights, not of model code: every matrix
//! product goes through [`Weights::linear`].

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::backend::rng::Rng;
use crate::backend::{Params, Result, Tensor};
use crate::failure::Failure;
use crate::format::tensors::{Arrays, Values};

/// Named weights.
pub struct Weights<T: Tensor> {
    tensors: BTreeMap<String, T>,
    lora: Option<Lora<T>>,
}

/// Low-rank updates in training: `y += scale * B(A(dropout(x)))`. Hu et al., 2021.
pub struct Lora<T: Tensor> {
    /// `MODULE.lora_A.weight` [rank, in] and `MODULE.lora_B.weight` [out, rank].
    pub params: Params<T>,
    /// alpha / rank.
    pub scale: f64,
    /// Dropout on the adapter's input, and its random numbers; none in evaluation.
    pub dropout: Option<(f32, RefCell<Rng>)>,
}

impl<T: Tensor> Weights<T> {
    /// Uploads the arrays, each as it is (packed words are unpacked before, see [`super::quantized`]).
    pub fn new(arrays: &Arrays) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, array) in arrays {
            if let Values::F32(values) = &array.values {
                tensors.insert(name.clone(), T::from_f32(values, &array.shape)?);
            }
        }
        Ok(Self { tensors, lora: None })
    }

    /// Puts adapters on, for training.
    pub fn set_lora(&mut self, lora: Option<Lora<T>>) {
        self.lora = lora;
    }

    /// A weight by name.
    pub fn get(&self, name: &str) -> Result<&T> {
        self.tensors
            .get(name)
            .ok_or_else(|| crate::backend::BackendError::Library(format!("the model has no weight `{name}`")))
    }

    /// Replaces a weight.
    pub fn set(&mut self, name: &str, tensor: T) {
        self.tensors.insert(name.to_owned(), tensor);
    }

    fn matrix(&self, name: &str) -> Result<T> {
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
        if adapted || self.tensors.contains_key(&format!("{name}.bias")) {
            return self.linear(name, x)?.scale_shift(scale, shift, low, high);
        }
        x.linear_scale_shift(&self.matrix(name)?, scale, shift, low, high)
    }

    /// `x [.., in] -> [.., out]` through the module `name`: its weight, bias and adapter.
    pub fn linear(&self, name: &str, x: &T) -> Result<T> {
        let weight = self.matrix(name)?;
        let y = x.linear(&weight, self.tensors.get(&format!("{name}.bias")))?;
        let Some(lora) = &self.lora else { return Ok(y) };
        let Some(a) = lora.params.get(&format!("{name}.lora_A.weight")) else { return Ok(y) };
        let b = &lora.params[&format!("{name}.lora_B.weight")];
        let x = match &lora.dropout {
            Some((p, rng)) if *p > 0.0 => {
                let shape = x.shape();
                let mask = rng.borrow_mut().dropout(*p, shape.iter().product());
                x.mul(&T::from_f32(&mask, &shape)?)?
            }
            _ => x.clone(),
        };
        y.add(&x.linear(a, None)?.linear(b, None)?.affine(lora.scale, 0.0)?)
    }
}

/// Adds low-rank updates to the weights they belong to: `W + scale * B A`. Names as in [`Lora::params`].
pub fn merge(base: &mut Arrays, adapter: &Arrays, scale: f32) -> std::result::Result<(), Failure> {
    for (name, a) in adapter {
        let Some(module) = name.strip_suffix(".lora_A.weight") else {
            // A module that was trained whole stands in its own right.
            if !name.ends_with(".lora_B.weight") {
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
        let Values::F32(values) = &mut weight.values else {
            return Err(Failure::target(format!("`{module}` is quantized; merge into the model it was made from")));
        };
        if values.len() != out * inner || rank != rank_b {
            return Err(Failure::target(format!("the adapter's shapes do not fit `{module}`")));
        }
        let (a, b) = (a.floats(), b.floats());
        for o in 0..out {
            for r in 0..rank {
                let factor = scale * b[o * rank + r];
                for i in 0..inner {
                    values[o * inner + i] += factor * a[r * inner + i];
                }
            }
        }
    }
    Ok(())
}
