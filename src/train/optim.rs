//! Optimizers, learning-rate schedules, gradient clipping: written once, on plain values, so that every backend
//! takes the same steps.

use std::collections::BTreeMap;

use crate::backend::arrays::{Array, Arrays};
use crate::backend::{Params, Result, Tensor, kernels};
use crate::failure::Failure;

/// What turns gradients into steps. Decay is of matrices only, as is usual: gains, biases and scalars are left alone.
#[derive(Clone, Debug)]
pub enum Optimizer {
    /// The default.
    AdamW(AdamW),
    /// Plain, with momentum.
    Sgd(Sgd),
}

impl Optimizer {
    /// One step.
    pub fn step<T: Tensor>(&mut self, params: &mut Params<T>, grads: &Params<T>, rate: f64) -> Result<()> {
        match self {
            Self::AdamW(own) => own.step(params, grads, rate),
            Self::Sgd(own) => own.step(params, grads, rate),
        }
    }

    /// What a training goes on with as if it had not stopped, with the number of steps.
    pub fn save(&self, arrays: &mut Arrays) {
        match self {
            Self::AdamW(own) => own.save(arrays),
            Self::Sgd(own) => own.save(arrays),
        }
    }

    /// Takes up what [`Self::save`] wrote after so many steps.
    pub fn load(&mut self, arrays: &Arrays, step: u64) {
        match self {
            Self::AdamW(own) => own.load(arrays, step),
            Self::Sgd(own) => own.load(arrays),
        }
    }
}

/// Gradient descent with momentum: see [`kernels::sgd`].
#[derive(Clone, Debug)]
pub struct Sgd {
    momentum: f64,
    decay: f64,
    moments: BTreeMap<String, Vec<f32>>,
}

impl Sgd {
    /// With decay added to the gradient, as in PyTorch.
    pub fn new(momentum: f64, decay: f64) -> Self {
        Self { momentum, decay, moments: BTreeMap::new() }
    }

    fn step<T: Tensor>(&mut self, params: &mut Params<T>, grads: &Params<T>, rate: f64) -> Result<()> {
        for (name, param) in params {
            let shape = param.shape();
            let (mut values, grad) = (param.to_f32()?, grads[name].to_f32()?);
            let m = self.moments.entry(name.clone()).or_insert_with(|| vec![0.0; values.len()]);
            let decay = if shape.len() > 1 { self.decay } else { 0.0 };
            kernels::sgd(&mut values, &grad, m, rate as f32, self.momentum as f32, decay as f32);
            *param = T::from_f32(&values, &shape)?;
        }
        Ok(())
    }

    fn save(&self, arrays: &mut Arrays) {
        for (name, m) in &self.moments {
            arrays.insert(format!("m.{name}"), Array::f32(&[m.len()], m.clone()));
        }
    }

    fn load(&mut self, arrays: &Arrays) {
        let named = arrays.iter().filter_map(|(name, m)| Some((name.strip_prefix("m.")?, m)));
        self.moments = named.map(|(name, m)| (name.to_owned(), m.floats().to_vec())).collect();
    }
}

/// Loshchilov and Hutter, "Decoupled weight decay regularization", 2019; bias-corrected as in Kingma and Ba.
#[derive(Clone, Debug)]
pub struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
    decay: f64,
    step: u64,
    moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
}

impl AdamW {
    /// With decay on matrices only, as is usual: gains, biases and scalars are left alone.
    pub fn new(beta1: f64, beta2: f64, decay: f64) -> Self {
        Self { beta1, beta2, eps: 1e-8, decay, step: 0, moments: BTreeMap::new() }
    }

    /// One step.
    pub fn step<T: Tensor>(&mut self, params: &mut Params<T>, grads: &Params<T>, rate: f64) -> Result<()> {
        self.step += 1;
        let correct1 = 1.0 - self.beta1.powi(self.step as i32);
        let correct2 = 1.0 - self.beta2.powi(self.step as i32);
        for (name, param) in params {
            let shape = param.shape();
            let (mut values, grad) = (param.to_f32()?, grads[name].to_f32()?);
            let (m, v) =
                self.moments.entry(name.clone()).or_insert_with(|| (vec![0.0; values.len()], vec![0.0; values.len()]));
            let decay = if shape.len() > 1 { 1.0 - rate * self.decay } else { 1.0 };
            let step = kernels::AdamStep {
                beta1: self.beta1 as f32,
                beta2: self.beta2 as f32,
                rate: (rate / correct1) as f32,
                correct2: correct2.sqrt() as f32,
                eps: self.eps as f32,
                decay: decay as f32,
            };
            kernels::adamw(&mut values, &grad, m, v, &step);
            *param = T::from_f32(&values, &shape)?;
        }
        Ok(())
    }

    /// The moments, as `m.NAME` and `v.NAME`: with them and the number of steps a training goes on as if it had not
    /// stopped.
    pub fn save(&self, arrays: &mut Arrays) {
        for (name, (m, v)) in &self.moments {
            arrays.insert(format!("m.{name}"), Array::f32(&[m.len()], m.clone()));
            arrays.insert(format!("v.{name}"), Array::f32(&[v.len()], v.clone()));
        }
    }

    /// Takes up what [`Self::save`] wrote after so many steps.
    pub fn load(&mut self, arrays: &Arrays, step: u64) {
        self.step = step;
        for (name, m) in arrays {
            let Some(name) = name.strip_prefix("m.") else { continue };
            if let Some(v) = arrays.get(&format!("v.{name}")) {
                self.moments.insert(name.to_owned(), (m.floats().to_vec(), v.floats().to_vec()));
            }
        }
    }
}

/// Scales gradients so that their norm over all parameters is at most `limit`; returns the norm before.
/// Pascanu, Mikolov and Bengio, 2013.
pub fn clip<T: Tensor>(grads: &mut Params<T>, limit: f64) -> Result<f64> {
    let mut square = 0.0;
    for grad in grads.values() {
        square += grad.to_f32()?.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
    }
    let norm = square.sqrt();
    if norm > limit {
        for grad in grads.values_mut() {
            *grad = grad.affine(limit / norm, 0.0)?;
        }
    }
    Ok(norm)
}

/// How the learning rate goes after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Stays at its peak: a training can be made longer without being done again.
    Constant,
    /// Falls to zero along a line.
    Linear,
    /// Falls to zero along half a cosine. Loshchilov and Hutter, 2017.
    Cosine,
}

impl Schedule {
    /// The rate at a step, after a linear warm-up.
    pub fn rate(self, peak: f64, step: u64, warmup: u64, total: u64) -> f64 {
        let done = step as f64 / total.max(1) as f64;
        let falls = match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - done,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        let warm = if warmup == 0 { 1.0 } else { ((step + 1) as f64 / warmup as f64).min(1.0) };
        peak * warm * falls
    }
}

/// What is tried where a training went wrong.
pub const CALMER: &str = "try a lower `learning-rate`, a longer `warmup`, or a smaller `gradient-clip`";

/// Stops a training whose loss is no longer a number.
pub fn check_loss(loss: f32, step: u64, rate: f64, norm: f64) -> std::result::Result<(), Failure> {
    if loss.is_finite() && norm.is_finite() {
        return Ok(());
    }
    Err(Failure::target(format!(
        "the loss is {loss} at step {step} (learning rate {rate:.3e}, gradient norm {norm:.3e})"
    ))
    .help(CALMER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CandleTensor;

    fn tensor(v: &[f32]) -> CandleTensor {
        CandleTensor::from_f32(v, &[1, 2]).expect("fits")
    }

    fn step(adam: &mut AdamW, params: &mut Params<CandleTensor>, grad: [f32; 2]) {
        adam.step(params, &Params::from([("p".to_owned(), tensor(&grad))]), 0.1).expect("steps");
    }

    /// torch 2.15: `p = torch.tensor([[1., -2.]]); AdamW([p], lr=.1, betas=(.9, .98), weight_decay=.01)`, three
    /// steps with gradients [[.5, -1.]], [[.25, 1.]], [[-1., .1]].
    #[test]
    fn adamw_takes_torchs_steps_also_when_it_was_stopped_in_between() {
        let mut params = Params::from([("p".to_owned(), tensor(&[1.0, -2.0]))]);
        let mut adam = AdamW::new(0.9, 0.98, 0.01);
        step(&mut adam, &mut params, [0.5, -1.0]);
        step(&mut adam, &mut params, [0.25, 1.0]);
        let mut arrays = Arrays::new();
        adam.save(&mut arrays);
        let mut adam = AdamW::new(0.9, 0.98, 0.01);
        adam.load(&arrays, 2);
        step(&mut adam, &mut params, [-1.0, 0.1]);
        let values = params["p"].to_f32().expect("values");
        for (found, torch) in values.iter().zip(TORCH) {
            assert!((found - torch).abs() < 1e-6, "{values:?}");
        }
    }

    /// torch 2.15: the same gradients, `SGD([p], lr=.1, momentum=.9, weight_decay=.01)`.
    #[test]
    fn sgd_takes_torchs_steps_also_when_it_was_stopped_in_between() {
        let mut params = Params::from([("p".to_owned(), tensor(&[1.0, -2.0]))]);
        let mut go = |sgd: &mut Optimizer, grad: [f32; 2]| {
            let grads = Params::from([("p".to_owned(), tensor(&grad))]);
            sgd.step(&mut params, &grads, 0.1).expect("steps");
            params["p"].to_f32().expect("values")
        };
        let mut sgd = Optimizer::Sgd(Sgd::new(0.9, 0.01));
        go(&mut sgd, [0.5, -1.0]);
        go(&mut sgd, [0.25, 1.0]);
        let mut arrays = Arrays::new();
        sgd.save(&mut arrays);
        let mut sgd = Optimizer::Sgd(Sgd::new(0.9, 0.01));
        sgd.load(&arrays, 2);
        let values = go(&mut sgd, [-1.0, 0.1]);
        for (found, torch) in values.iter().zip(TORCH_SGD) {
            assert!((found - torch).abs() < 1e-6, "{values:?}");
        }
    }

    const TORCH_SGD: [f32; 2] = [0.911_609_8, -1.918_069_5];

    const TORCH: [f32; 2] = [0.824_331_5, -1.908_072_4];

    #[test]
    fn rates_warm_up_and_fall() {
        let all = |schedule: Schedule| [0, 1, 2, 5, 9].map(|step| schedule.rate(1.0, step, 2, 10));
        assert_eq!(all(Schedule::Constant), [0.5, 1.0, 1.0, 1.0, 1.0]);
        assert_eq!(all(Schedule::Linear)[3], 0.5);
        assert!((all(Schedule::Cosine)[3] - 0.5).abs() < 1e-12);
        assert!(all(Schedule::Cosine)[4] < 0.03);
    }
}
