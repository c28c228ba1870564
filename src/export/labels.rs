//! Labels whose probabilities a file gives in place of a picture's vector: zero-shot, by the vectors that the model's own text tower makes
//! of prompts when it is exported.
//!
//! Those are a constant of the graph, `[labels, dim]`, times what the model multiplies cosines by. What is computed is a product and a
//! softmax more, so every format has it, in every precision. What labels are in a format besides is its writer's.

use serde_json::{Map, Value};

use crate::backend::texts::Named;
use crate::backend::trace::TraceTensor;
use crate::backend::{Tensor, Texts};
use crate::failure::Failure;
use crate::format::image::Preprocessing;
use crate::model::encoder::Encoder;
use crate::model::fit::Words;
use crate::model::{Config, Model, zero_shot};

/// The file of them beside an export, and within a TensorFlow Lite file.
pub const FILE: &str = "labels.txt";
/// What a file with labels gives: of each picture those of all labels.
pub(super) const PROBABILITIES: &str = "probabilities";
/// The weight by which cosines become logits: its exponential is what they are multiplied by.
const SCALE: &str = "logit_scale";
/// Texts that are read at once: a trace keeps what every operation gives.
const AT_ONCE: usize = 8;

/// Labels, as a model tells them apart.
pub(super) struct Labels {
    names: Vec<String>,
    /// What cosines are multiplied by.
    scale: f64,
    /// Their vectors, scaled: [labels, dim].
    matrix: TraceTensor,
}

impl Labels {
    /// Of these names, by what a model makes of prompts, of which there is one at least; its texts are a graph's inputs of these names.
    ///
    /// # Errors
    /// If the model has no text tower, or says nothing of what cosines are multiplied by.
    pub(super) fn new(
        model: &Model<TraceTensor>,
        inputs: Named,
        names: &[String],
        prompts: &[String],
    ) -> Result<Self, Failure> {
        if !matches!(model.config, Config::Clip(_) | Config::DualEncoder { .. }) {
            return Err(Failure::user("`labels` are told apart by their texts, and this model reads none")
                .help("name a picture-text model, or leave `labels` out"));
        }
        let Ok(scale) = model.weights.get(SCALE) else {
            let what = format!("the model has no `{SCALE}`, by which cosines become probabilities of `labels`");
            return Err(Failure::user(what).help("leave `labels` out, or name a model that was trained with one"));
        };
        let scale = f64::from(scale.to_f32()?.first().copied().unwrap_or(0.0)).exp();
        let texts = names.iter().flat_map(|name| prompts.iter().map(move |prompt| zero_shot::filled(prompt, name)));
        let texts: Vec<String> = texts.collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let vectors = Reads { model, inputs }.encode_texts(&texts, &mut |_| {})?;
        let width = vectors.first().map_or(0, Vec::len);
        let of_labels = vectors.chunks_exact(prompts.len().max(1));
        let means = of_labels.flat_map(|own| zero_shot::mean(own.iter().map(Vec::as_slice), width));
        let values: Vec<f32> = means.map(|value| (f64::from(value) * scale) as f32).collect();
        let matrix = TraceTensor::from_f32(&values, &[names.len(), width])?.named("labels.weight");
        Ok(Self { names: names.to_vec(), scale, matrix })
    }

    /// In their order.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// What cosines are multiplied by.
    pub(super) fn scale(&self) -> f64 {
        self.scale
    }

    /// Of pictures by their vectors, which are of length 1: [pictures, labels].
    pub(super) fn probabilities(&self, vectors: &TraceTensor) -> crate::backend::Result<TraceTensor> {
        vectors.linear(&self.matrix, None)?.softmax()
    }
}

/// A traced model as what reads texts that are known.
struct Reads<'a> {
    model: &'a Model<TraceTensor>,
    inputs: Named,
}

impl Encoder for Reads<'_> {
    fn preprocessing(&self) -> Option<Preprocessing> {
        None
    }

    fn tokenizer(&self) -> Result<&Words, Failure> {
        self.model.tokenizer()
    }

    fn reads(&self) -> bool {
        true
    }

    fn texts(&self, rows: &[Vec<u32>]) -> Result<Vec<f32>, Failure> {
        let mut all = Vec::new();
        for rows in rows.chunks(AT_ONCE) {
            let vectors = self.model.text_batch(&Texts::given(rows, self.inputs.clone()), None)?;
            all.extend(vectors.values().expect("the texts are given")?);
        }
        Ok(all)
    }

    fn pictures(&self, _values: &[f32], _count: usize) -> Result<Vec<f32>, Failure> {
        Err(Failure::target("only texts are read here"))
    }
}

/// The text of [`FILE`]: one a line, in the order of the probabilities.
pub fn lines(labels: &[String]) -> String {
    labels.iter().flat_map(|label| [label.as_str(), "\n"]).collect()
}

/// Says in a model's configuration which label is which, as Hugging Face's library has it.
pub fn configure(config: &mut Map<String, Value>, labels: &[String]) {
    let numbered = || labels.iter().enumerate();
    let by_number: Map<String, Value> = numbered().map(|(at, label)| (at.to_string(), label.clone().into())).collect();
    let by_label: Map<String, Value> = numbered().map(|(at, label)| (label.clone(), at.into())).collect();
    config.insert("id2label".into(), by_number.into());
    config.insert("label2id".into(), by_label.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lines_and_numbers() {
        let labels = ["heart".to_owned(), "red apple".to_owned()];
        assert_eq!(lines(&labels), "heart\nred apple\n");
        let mut config = Map::new();
        configure(&mut config, &labels);
        let told = r#"{"id2label":{"0":"heart","1":"red apple"},"label2id":{"heart":0,"red apple":1}}"#;
        assert_eq!(Value::from(config).to_string(), told);
    }
}
