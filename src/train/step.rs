//! The loss and gradients of a step of a language model: at once, or layer by layer.
//!
//! At once, all that the layers computed is kept until its gradients are done. Layer by layer (gradient checkpointing: Chen,
//! Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", 2016) only what each layer read is kept, and a
//! layer is computed again when its gradients are due: the forward pass is done twice, and what is held beside the weights is
//! one layer's and not all layers'. The gradients are the same to the last bit, since every sum is of the same terms in the
//! same order.

use std::cell::RefCell;

use super::language::Task;
use super::text::Example;
use crate::backend::rng::Rng;
use crate::backend::{BackendError, Params, Result, Tensor};
use crate::model::llama::{self, EMBEDDING, NORM};
use crate::model::weights::Weights;

/// How a loss is computed.
#[derive(Clone, Debug)]
pub struct Step {
    /// What low-rank updates are multiplied by.
    pub scale: f64,
    /// Share of the updates' input that is dropped.
    pub dropout: f32,
    /// Draws what is dropped.
    pub noise: Rng,
    /// Examples lie one after the other instead of being padded.
    pub packed: bool,
    /// Tokens that the loss is a mean over: the batch's, of which these examples may be a part.
    pub count: usize,
    /// Layer by layer.
    pub checkpointed: bool,
}

/// What a stage reads, among its parameters. No weight is called that.
const INPUT: &str = "input";

impl Step {
    /// The loss of some examples and its gradients by the parameters. The weights are left with values of the step's own:
    /// [`Weights::put`] the parameters again before anything else is computed.
    pub fn value_and_grad<T: Tensor>(
        &self,
        weights: &mut Weights<T>,
        config: &llama::Config,
        params: &Params<T>,
        batch: &[&Example],
    ) -> Result<(f32, Params<T>)> {
        let task = Task::new(config, batch, self.packed)?;
        if self.checkpointed {
            return self.by_layers(weights, &task, params);
        }
        let mut noise = self.dropped(Some(self.noise.clone()));
        T::value_and_grad(params, &mut |p| {
            weights.put(p, self.scale, noise.take());
            self.mean(&task.losses(weights, &task.stages.run(weights)?)?)
        })
    }

    /// Each token counts alike, however the batch is cut.
    fn mean<T: Tensor>(&self, losses: &T) -> Result<T> {
        losses.sum_all()?.affine(1.0 / self.count as f64, 0.0)
    }

    fn dropped(&self, noise: Option<Rng>) -> Option<(f32, RefCell<Rng>)> {
        noise.map(|noise| (self.dropout, RefCell::new(noise)))
    }

    fn by_layers<T: Tensor>(
        &self,
        weights: &mut Weights<T>,
        task: &Task<'_>,
        params: &Params<T>,
    ) -> Result<(f32, Params<T>)> {
        let of = |module: &str| -> Params<T> {
            let own = params.iter().filter(|(name, _)| name.strip_prefix(module).is_some_and(|n| n.starts_with('.')));
            own.map(|(name, tensor)| (name.clone(), tensor.clone())).collect()
        };
        let layers: Vec<Params<T>> = (0..task.stages.depth()).map(|number| of(&llama::layer_name(number))).collect();
        let embedding = of(EMBEDDING);
        // Below the first that is trained, gradients are of no use.
        let trained = if embedding.is_empty() { layers.iter().position(|own| !own.is_empty()) } else { Some(0) };
        let first = trained.unwrap_or(layers.len());

        weights.put(params, self.scale, self.dropped(Some(self.noise.clone())));
        let mut x = task.stages.begin(weights)?.settled()?;
        let mut kept = Vec::new();
        for number in 0..layers.len() {
            let noise = weights.noise();
            let next = task.stages.layer(weights, number, &x)?.settled()?;
            if number >= first {
                kept.push((x, noise));
            }
            x = next;
        }

        let mut own = of(NORM);
        own.extend(of(task.head()));
        let (loss, mut grads, mut grad) = self.stage(weights, own, x, trained.is_some(), None, &mut |weights, x| {
            self.mean(&task.losses(weights, &task.stages.end(weights, x)?)?)
        })?;
        for (number, own) in layers.into_iter().enumerate().skip(first).rev() {
            let (Some((x, noise)), Some(above)) = (kept.pop(), grad.take()) else { break };
            let below = number > first || !embedding.is_empty();
            let (_, more, by_x) = self.stage(weights, own, x, below, noise, &mut |weights, x| {
                task.stages.layer(weights, number, x)?.mul(&above)?.sum_all()
            })?;
            grads.extend(more);
            grad = by_x;
        }
        if let Some(above) = grad.filter(|_| !embedding.is_empty()) {
            let name = format!("{EMBEDDING}.weight");
            // Where it is the last matrix too, its rows' gradients are added to what it has of that.
            let before = grads.remove(&name);
            let (_, more) = T::value_and_grad(&embedding, &mut |p| {
                weights.put(p, self.scale, None);
                let rows = task.stages.begin(weights)?.mul(&above)?.sum_all()?;
                match &before {
                    Some(before) => rows.add(&weights.get(&name)?.mul(before)?.sum_all()?),
                    None => Ok(rows),
                }
            })?;
            grads.extend(more);
        }
        match params.keys().find(|name| !grads.contains_key(*name)) {
            Some(name) => Err(BackendError::NoGradient(name.clone())),
            None => Ok((loss, grads)),
        }
    }

    /// The value of one stage, and its gradients by its own parameters and, where that is asked for, by what it reads.
    fn stage<T: Tensor>(
        &self,
        weights: &mut Weights<T>,
        mut own: Params<T>,
        x: T,
        by_x: bool,
        noise: Option<Rng>,
        run: &mut dyn FnMut(&Weights<T>, &T) -> Result<T>,
    ) -> Result<(f32, Params<T>, Option<T>)> {
        if by_x {
            own.insert(INPUT.into(), x.clone());
        }
        let mut noise = self.dropped(noise);
        let (value, mut grads) = T::value_and_grad(&own, &mut |p| {
            let mut p = p.clone();
            let x = p.remove(INPUT).unwrap_or_else(|| x.clone());
            weights.put(&p, self.scale, noise.take());
            run(weights, &x)
        })?;
        let by_x = grads.remove(INPUT);
        Ok((value, grads, by_x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::CandleTensor;
    #[cfg(feature = "mlx")]
    use crate::backend::MlxTensor;
    use crate::backend::Precision;
    use crate::backend::arrays::{Array, Arrays};
    use crate::model::weights::MAGNITUDE;

    const WIDTH: usize = 8;
    const TOKENS: usize = 11;

    fn random(shape: &[usize], name: &str) -> Array {
        let mut rng = Rng::new(1, name);
        Array::f32(shape, (0..shape.iter().product()).map(|_| rng.normal()).collect())
    }

    fn model(tied: bool) -> (llama::Config, Arrays) {
        let config = serde_json::json!({
            "hidden_size": WIDTH, "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "vocab_size": TOKENS, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
            "tie_word_embeddings": tied,
        });
        let mut arrays = Arrays::new();
        let mut add = |name: &str, shape: &[usize]| {
            arrays.insert(format!("{name}.weight"), random(shape, name));
        };
        add(EMBEDDING, &[TOKENS, WIDTH]);
        add(NORM, &[WIDTH]);
        if !tied {
            add("lm_head", &[TOKENS, WIDTH]);
        }
        for number in 0..3 {
            let mut add = |part: &str, shape: &[usize]| add(&format!("{}.{part}", llama::layer_name(number)), shape);
            add("input_layernorm", &[WIDTH]);
            add("post_attention_layernorm", &[WIDTH]);
            for (part, out, inner) in [
                ("self_attn.q_proj", WIDTH, WIDTH),
                ("self_attn.k_proj", WIDTH / 2, WIDTH),
                ("self_attn.v_proj", WIDTH / 2, WIDTH),
                ("self_attn.o_proj", WIDTH, WIDTH),
                ("mlp.gate_proj", 12, WIDTH),
                ("mlp.up_proj", 12, WIDTH),
                ("mlp.down_proj", WIDTH, 12),
            ] {
                add(part, &[out, inner]);
            }
        }
        (serde_json::from_value(config).expect("fits"), arrays)
    }

    /// Low-rank updates of these modules, with magnitudes where they are DoRA's.
    fn updates(arrays: &Arrays, modules: &[&str], decomposed: bool) -> Arrays {
        let of = |module: &str| {
            let shape = &arrays[&format!("{module}.weight")].shape;
            let parts = [("lora_A.weight", vec![2, shape[1]]), ("lora_B.weight", vec![shape[0], 2])];
            let more = decomposed.then(|| (MAGNITUDE, vec![shape[0]]));
            parts
                .into_iter()
                .chain(more)
                .map(|(part, shape)| {
                    let name = format!("{module}.{part}");
                    let array = random(&shape, &name);
                    (name, array)
                })
                .collect::<Vec<_>>()
        };
        modules.iter().flat_map(|module| of(module)).collect()
    }

    fn same<T: Tensor>(precision: Precision) {
        let layer = |number: usize, part: &str| format!("{}.{part}", llama::layer_name(number));
        let (all, lower) = (layer(0, "self_attn.q_proj"), layer(1, "mlp.down_proj"));
        for tied in [true, false] {
            let (config, arrays) = model(tied);
            let only = |part: &str| -> Arrays {
                arrays.iter().filter(|(n, _)| n.contains(part)).map(|(n, a)| (n.clone(), a.clone())).collect()
            };
            let cases = [
                ("all weights", arrays.clone()),
                ("what is after the layers", only(NORM)),
                ("the tokens' vectors", only(EMBEDDING)),
                ("a layer in the middle", only("layers.1.")),
                ("lora", updates(&arrays, &[&all, &lower], false)),
                ("dora", updates(&arrays, &[&lower, &layer(2, "self_attn.v_proj")], true)),
            ];
            let of = |ids: &[u32]| Example { ids: ids.to_vec(), counts: ids.iter().map(|id| *id != 3).collect() };
            let examples = [of(&[1, 5, 3, 1, 9, 2]), of(&[3, 4, 1]), of(&[0, 10, 10, 7])];
            let batch: Vec<&Example> = examples.iter().collect();
            for (what, params) in cases {
                let tensor = |a: &Array| T::from_f32(a.floats(), &a.shape).expect("fits");
                let params: Params<T> = params.iter().map(|(n, a)| (n.clone(), tensor(a))).collect();
                for packed in [false, true] {
                    let run = |checkpointed: bool| {
                        let noise = Rng::new(1, "noise");
                        let step = Step { scale: 0.5, dropout: 0.3, noise, packed, count: 10, checkpointed };
                        let mut weights = Weights::<T>::take(&mut arrays.clone(), precision).expect("uploads");
                        let (loss, grads) =
                            step.value_and_grad(&mut weights, &config, &params, &batch).expect("computes");
                        let bits = |t: &T| t.to_f32().expect("values").iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                        let grads: Vec<_> = grads.iter().map(|(name, grad)| (name.clone(), bits(grad))).collect();
                        (loss.to_bits(), grads)
                    };
                    let (plain, layers) = (run(false), run(true));
                    assert_eq!(plain.1.len(), params.len());
                    assert!(plain.1.iter().all(|(_, grad)| grad.iter().any(|bits| *bits << 1 != 0)), "{what}");
                    assert_eq!(plain, layers, "{what}, tied: {tied}, packed: {packed}");
                }
            }
        }
    }

    #[test]
    fn layer_by_layer_the_gradients_are_the_same_bits() {
        same::<CandleTensor>(Precision::F32);
        #[cfg(feature = "mlx")]
        for precision in [Precision::F32, Precision::Bf16] {
            same::<MlxTensor>(precision);
        }
    }

    #[test]
    fn a_parameter_of_no_stage_is_an_error() {
        let (config, arrays) = model(true);
        let more =
            Params::from([("model.other.weight".to_owned(), CandleTensor::from_f32(&[1.0], &[1]).expect("fits"))]);
        let noise = Rng::new(1, "noise");
        let step = Step { scale: 1.0, dropout: 0.0, noise, packed: false, count: 1, checkpointed: true };
        let mut weights = Weights::new(&arrays).expect("uploads");
        let example = Example { ids: vec![1, 2], counts: vec![true; 2] };
        let error = step.value_and_grad(&mut weights, &config, &more, &[&example]).expect_err("refused");
        assert_eq!(error.to_string(), "the parameter `model.other.weight` got no gradient");
    }
}
