//! Projection heads: a tower's features into the common space.
//!
//! Those of two towers that were trained apart:
//! `x -> (x - mean) / std -> linear [-> GELU -> linear] -> length 1`. The statistics are those of the training
//! rows and part of the weights. Text features are first brought to length 1, as their encoder was trained.

use serde::{Deserialize, Serialize};

use std::cell::RefCell;

use super::weights::Weights;
use crate::backend::rng::Rng;
use crate::backend::{Result, Tensor};

/// The shape of the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Width of the common space.
    pub dim: usize,
    /// Inner width; 0 for a single linear layer.
    pub hidden: usize,
}

/// Dropout in training: its share, and its random numbers.
pub type Dropout = (f32, RefCell<Rng>);

/// Pooled text features [n, in] -> [n, dim].
pub fn text<T: Tensor>(weights: &Weights<T>, pooled: &T, dropout: Option<&Dropout>) -> Result<T> {
    project(weights, "text_projection", &pooled.normalize()?, dropout)
}

/// Pooled picture features [n, in] -> [n, dim].
pub fn vision<T: Tensor>(weights: &Weights<T>, pooled: &T, dropout: Option<&Dropout>) -> Result<T> {
    project(weights, "vision_projection", pooled, dropout)
}

/// A head that is one matrix, CLIP's: features [n, in] -> [n, dim], of length 1.
pub fn linear<T: Tensor>(weights: &Weights<T>, name: &str, pooled: &T, dropout: Option<&Dropout>) -> Result<T> {
    weights.linear(name, &drop_out(pooled.clone(), dropout)?)?.normalize()
}

fn drop_out<T: Tensor>(x: T, dropout: Option<&Dropout>) -> Result<T> {
    let Some((p, rng)) = dropout.filter(|(p, _)| *p > 0.0) else { return Ok(x) };
    let shape = x.shape();
    let mask = rng.borrow_mut().dropout(*p, shape.iter().product());
    x.mul(&T::from_f32(&mask, &shape)?)
}

fn project<T: Tensor>(weights: &Weights<T>, name: &str, x: &T, dropout: Option<&Dropout>) -> Result<T> {
    let scale = weights.get(&format!("{name}.input_scale"))?;
    let shift = weights.get(&format!("{name}.input_shift"))?;
    let x = x.scale_shift(scale, shift, f32::NEG_INFINITY, f32::INFINITY)?;
    let mut y = weights.linear(&format!("{name}.0"), &drop_out(x, dropout)?)?;
    if weights.get(&format!("{name}.2.weight")).is_ok() {
        y = weights.linear(&format!("{name}.2"), &drop_out(y.gelu()?, dropout)?)?;
    }
    y.normalize()
}
