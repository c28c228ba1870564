//! How much of a language model's divergence each of its matrices is to blame for, measured one by one: only that one is
//! rounded, and the predictions are held against the model's own.

use std::collections::BTreeMap;

use crate::backend::arrays::Array;
use crate::backend::{self, Tensor, kernels};
use crate::failure::Failure;
use crate::model::llama::{self, EMBEDDING, layer_name};
use crate::model::weights::Weights;
use crate::train::language::Task;
use crate::train::text::Example;

/// Tokens computed at once.
const TOKENS: usize = 2048;

/// Gives the mean divergence in nats a token, by module, of the modules that `rounded` gives weights for.
/// `told` hears how many matrices of how many are done.
pub fn by_module<T: Tensor>(
    weights: &mut Weights<T>,
    config: &llama::Config,
    examples: &[Example],
    modules: &[String],
    rounded: &dyn Fn(&str) -> Array,
    told: &mut dyn FnMut(usize),
) -> Result<BTreeMap<String, f64>, Failure> {
    let batches = batches(examples);
    let tasks = batches.iter().map(|b| Task::new(config, b, true)).collect::<backend::Result<Vec<_>>>()?;
    let mut states = tasks.iter().map(|task| task.stages.begin(weights)).collect::<backend::Result<Vec<T>>>()?;
    // From the layer `from` on, which reads x.
    let finish = |weights: &Weights<T>, task: &Task<'_>, from: usize, x: &T| -> backend::Result<Vec<f32>> {
        let mut x = x.clone();
        for layer in from..config.num_hidden_layers {
            x = task.stages.layer(weights, layer, &x)?;
        }
        task.logits(weights, &task.stages.end(weights, &x)?)?.to_f32()
    };
    let own =
        tasks.iter().zip(&states).map(|(task, x)| finish(weights, task, 0, x)).collect::<backend::Result<Vec<_>>>()?;
    let targets = own.iter().map(|logits| logits.len() / config.vocab_size).sum::<usize>().max(1);
    let mut found = BTreeMap::new();
    let mut measure = |weights: &mut Weights<T>, module: &str, from: usize, states: &[T]| -> Result<(), Failure> {
        let name = format!("{module}.weight");
        let before = weights.get(&name)?.clone();
        let array = rounded(module);
        weights.set(&name, T::from_f32(array.floats(), &array.shape)?);
        let mut sum = 0.0;
        for ((task, x), own) in tasks.iter().zip(states).zip(&own) {
            let x = if module == EMBEDDING { task.stages.begin(weights)? } else { x.clone() };
            let found = finish(weights, task, from, &x)?;
            sum += kernels::divergences(own, &found, config.vocab_size).iter().sum::<f64>();
        }
        weights.set(&name, before);
        found.insert(module.to_owned(), sum / targets as f64);
        told(found.len());
        Ok(())
    };
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("{}.", layer_name(layer));
        for module in modules.iter().filter(|module| module.starts_with(&prefix)) {
            measure(weights, module, layer, &states)?;
        }
        if layer == 0 {
            for module in modules.iter().filter(|module| *module == EMBEDDING) {
                measure(weights, module, 0, &states)?;
            }
        }
        for (task, x) in tasks.iter().zip(&mut states) {
            *x = task.stages.layer(weights, layer, x)?;
        }
    }
    for module in modules.iter().filter(|module| module.as_str() == llama::head(config) && *module != EMBEDDING) {
        measure(weights, module, config.num_hidden_layers, &states)?;
    }
    Ok(found)
}

/// Examples in batches of about [`TOKENS`].
fn batches(examples: &[Example]) -> Vec<Vec<&Example>> {
    let (mut all, mut tokens) = (Vec::<Vec<&Example>>::new(), usize::MAX);
    for example in examples {
        if tokens.saturating_add(example.ids.len()) > TOKENS {
            all.push(Vec::new());
            tokens = 0;
        }
        tokens += example.ids.len();
        all.last_mut().expect("just made").push(example);
    }
    all
}
