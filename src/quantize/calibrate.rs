//! What the matrices of a language model or a sentence encoder read on calibration rows, layer by layer.
//!
//! A layer reads what the layers before it give as they have become, so each makes up for what those are off by. Only one
//! layer's inputs are held beside the model, and the rows on their way.

use std::collections::BTreeMap;

use crate::backend::arrays::{Array, Arrays};
use crate::backend::gram::Gram;
use crate::backend::{Tensor, Texts};
use crate::failure::Failure;
use crate::model::bert;
use crate::model::llama::{self, Stages};
use crate::model::weights::Weights;

/// Tokens computed at once.
const TOKENS: usize = 4096;

/// The inputs of a layer's matrices by their modules' names.
pub type Grams = BTreeMap<String, Gram>;

/// What a layer becomes: its number, what its matrices read and its weights -> the weights that it goes on with, by their names.
pub type Round<'a> = dyn FnMut(usize, Grams, Arrays) -> Result<Vec<(String, Array)>, Failure> + 'a;

/// Goes through the layers with these texts of token ids. A layer that is done is dropped from `weights`: its own are with
/// `round`.
pub fn by_layers<T: Tensor>(
    weights: &mut Weights<T>,
    config: &llama::Config,
    texts: &[Vec<u32>],
    round: &mut Round<'_>,
) -> Result<(), Failure> {
    let stages = batches(texts)
        .into_iter()
        // Nothing is padded: every token counts alike.
        .map(|batch| Stages::new(config, batch, true))
        .collect::<crate::backend::Result<Vec<_>>>()?;
    let mut states = stages.iter().map(|stage| stage.begin(weights)).collect::<crate::backend::Result<Vec<T>>>()?;
    for layer in 0..config.num_hidden_layers {
        let mut grams = Grams::new();
        weights.note(true);
        for (stage, x) in stages.iter().zip(&states) {
            stage.layer(weights, layer, x)?;
            for (module, input) in weights.noted() {
                if shared(&module) {
                    continue;
                }
                let inner = *input.shape().last().unwrap_or(&1);
                grams.entry(module).or_insert_with(|| Gram::new(inner)).add(&input.to_f32()?);
            }
        }
        weights.note(false);
        let prefix = format!("{}.", llama::layer_name(layer));
        for (name, array) in round(layer, grams, weights.floats(&prefix)?)? {
            weights.set(&name, T::from_f32(array.floats(), &array.shape)?);
        }
        for (stage, x) in stages.iter().zip(&mut states) {
            *x = stage.layer(weights, layer, x)?;
        }
        weights.forget(&prefix);
    }
    Ok(())
}

/// Goes through the layers of a sentence encoder with these texts of token ids. Each layer is a pass over the whole model:
/// such models are small.
pub fn by_passes<T: Tensor>(
    weights: &mut Weights<T>,
    config: &bert::Config,
    texts: &[Vec<u32>],
    round: &mut Round<'_>,
) -> Result<(), Failure> {
    // Of one length: nothing is padded, and every token counts alike.
    let mut texts: Vec<&Vec<u32>> = texts.iter().collect();
    texts.sort_by_key(|text| text.len());
    let batches: Vec<Vec<Vec<u32>>> = texts
        .chunk_by(|a, b| a.len() == b.len())
        .flat_map(|alike| alike.chunks((TOKENS / alike[0].len().max(1)).max(1)))
        .map(|batch| batch.iter().map(|text| (*text).clone()).collect())
        .collect();
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("{}.", bert::layer_name(layer));
        let mut grams = Grams::new();
        weights.note(true);
        for batch in &batches {
            bert::encode(weights, config, "", &Texts::new(batch))?;
            for (module, input) in weights.noted() {
                if module.starts_with(&prefix) && !shared(&module) {
                    let inner = *input.shape().last().unwrap_or(&1);
                    grams.entry(module).or_insert_with(|| Gram::new(inner)).add(&input.to_f32()?);
                }
            }
        }
        weights.note(false);
        for (name, array) in round(layer, grams, weights.floats(&prefix)?)? {
            weights.set(&name, T::from_f32(array.floats(), &array.shape)?);
        }
    }
    Ok(())
}

/// Whether another module of the layer reads the same: [`reader`] is that one.
fn shared(module: &str) -> bool {
    reader(module) != module
}

/// The module whose inputs stand for a module's: keys and values read what queries do, `up` what `gate` does.
pub fn reader(module: &str) -> String {
    let alike = [
        ("k_proj", "q_proj"),
        ("v_proj", "q_proj"),
        ("up_proj", "gate_proj"),
        ("attention.self.key", "attention.self.query"),
        ("attention.self.value", "attention.self.query"),
    ];
    for (own, first) in alike {
        if let Some(layer) = module.strip_suffix(own) {
            return format!("{layer}{first}");
        }
    }
    module.to_owned()
}

/// Texts in batches of about [`TOKENS`].
fn batches(texts: &[Vec<u32>]) -> Vec<&[Vec<u32>]> {
    let (mut all, mut begin, mut tokens) = (Vec::new(), 0, 0);
    for (i, text) in texts.iter().enumerate() {
        if tokens > 0 && tokens + text.len() > TOKENS {
            all.push(&texts[begin..i]);
            (begin, tokens) = (i, 0);
        }
        tokens += text.len();
    }
    if begin < texts.len() {
        all.push(&texts[begin..]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_in_one_batch() {
        let texts: Vec<Vec<u32>> = [10, 4000, 90, 5000, 1].iter().map(|n| vec![0; *n]).collect();
        let found: Vec<Vec<usize>> = batches(&texts).iter().map(|b| b.iter().map(Vec::len).collect()).collect();
        assert_eq!(found, [vec![10, 4000], vec![90], vec![5000], vec![1]]);
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn modules_that_read_alike_have_one_reader() {
        assert_eq!(reader("model.layers.3.self_attn.v_proj"), "model.layers.3.self_attn.q_proj");
        assert_eq!(reader("encoder.layer.0.attention.self.key"), "encoder.layer.0.attention.self.query");
        assert_eq!(reader("model.layers.3.mlp.down_proj"), "model.layers.3.mlp.down_proj");
    }
}
