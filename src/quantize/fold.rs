//! Scales of a layer's inputs, put into the weights on both sides of them.

use super::calibrate::{Grams, reader};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::awq::multiply;
use crate::model::llama::Fold;

/// Divides what comes before by the scales (one for each of its outputs), multiplies the readers' weights by them, and has the
/// Gram be of the inputs as they are then. The model computes what it did.
pub fn apply(arrays: &mut Arrays, grams: &mut Grams, fold: &Fold, scales: &[f32]) {
    for part in ["weight", "bias"] {
        let Some(array) = arrays.get_mut(&format!("{}.{part}", fold.before)) else { continue };
        let mut values = array.floats().to_vec();
        let each = values.len() / scales.len();
        values.chunks_mut(each).zip(scales).for_each(|(row, scale)| row.iter_mut().for_each(|w| *w /= scale));
        *array = Array::f32(&array.shape, values);
    }
    for name in &fold.readers {
        let Some(array) = arrays.get_mut(&format!("{name}.weight")) else { continue };
        let mut values = array.floats().to_vec();
        multiply(&mut values, scales, &fold.outputs);
        *array = Array::f32(&array.shape, values);
    }
    if let Some(gram) = fold.readers.first().and_then(|name| grams.get_mut(&reader(name))) {
        gram.divide(&fold.outputs.iter().map(|output| scales[*output]).collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::backend::rng::random;
    use crate::backend::{CandleTensor, Tensor};
    use crate::model::llama::{self, Config, Stages};
    use crate::model::weights::Weights;
    use crate::quantize::calibrate::by_layers;

    /// A random model with heads that share keys and values.
    fn model() -> (Config, Arrays) {
        let config: Config = serde_json::from_value(json!({
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 20, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
        }))
        .expect("a configuration");
        let made = |(name, shape): (String, Vec<usize>)| {
            let values = random(shape.iter().product(), &name).into_iter();
            let values = if shape.len() == 1 {
                values.map(|v| 1.0 + 0.2 * v).collect()
            } else {
                values.map(|v| 0.2 * v).collect()
            };
            (name, Array::f32(&shape, values))
        };
        let arrays = llama::weights(&config).into_iter().map(made).collect();
        (config, arrays)
    }

    fn computed(config: &Config, arrays: &Arrays, ids: &[Vec<u32>]) -> Vec<f32> {
        let weights = Weights::<CandleTensor>::new(arrays).expect("uploads");
        Stages::new(config, ids, true).expect("short").run(&weights).expect("computes").to_f32().expect("values")
    }

    #[test]
    fn a_model_computes_what_it_did_and_reads_what_was_divided() {
        let (config, arrays) = model();
        let ids = [vec![1, 5, 9, 3], vec![7, 2, 11]];
        let grams = |arrays: &Arrays| {
            let mut all = Grams::new();
            let mut weights = Weights::<CandleTensor>::new(arrays).expect("uploads");
            by_layers(&mut weights, &config, &ids, &mut |_, grams, _| {
                all.extend(grams);
                Ok(Vec::new())
            })
            .expect("computes");
            all
        };
        let (mut changed, mut told) = (arrays.clone(), grams(&arrays));
        for fold in (0..2).flat_map(|layer| llama::folds(&config, layer)) {
            let count = arrays[&format!("{}.weight", fold.before)].shape[0];
            let scales: Vec<f32> = (0..count).map(|i| 0.5 + (i % 7) as f32 / 4.0).collect();
            apply(&mut changed, &mut told, &fold, &scales);
        }
        let differ = arrays.iter().filter(|(name, array)| changed[*name] != **array).count();
        assert_eq!(differ, 2 * 9, "all of a layer's weights");
        let (before, after) = (computed(&config, &arrays, &ids), computed(&config, &changed, &ids));
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        for (module, gram) in grams(&changed) {
            for (a, b) in gram.sums.iter().zip(&told[&module].sums) {
                assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{module}: {a} {b}");
            }
        }
    }
}
