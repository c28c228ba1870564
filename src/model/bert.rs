//! BERT as a sentence encoder: Devlin et al., 2018; mean pooling as in Reimers and Gurevych, 2019.

use serde::{Deserialize, Serialize};

use super::fit::Weight;
use super::weights::Weights;
use crate::backend::{Result, Scope, Tensor, Texts};

/// The fields of `config.json` that the forward pass needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Width.
    pub hidden_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Inner width of the feed-forward blocks.
    pub intermediate_size: usize,
    /// Tokens known.
    pub vocab_size: usize,
    /// Longest input.
    pub max_position_embeddings: usize,
    /// Token types.
    #[serde(default = "two")]
    pub type_vocab_size: usize,
    /// Of the layer norms.
    pub layer_norm_eps: f32,
}

fn two() -> usize {
    2
}

/// What the names of a layer's modules begin with.
pub fn layer_name(layer: usize) -> String {
    format!("encoder.layer.{layer}")
}

/// Encodes texts: -> [texts, hidden], not normalised.
///
/// `prefix` goes before each weight's name (`text.` inside a dual encoder).
pub fn encode<T: Tensor>(weights: &Weights<T>, config: &Config, prefix: &str, texts: &Texts) -> Result<T> {
    let (rows, length) = (texts.count(), texts.longest());
    let (width, heads) = (config.hidden_size, config.num_attention_heads);
    let head = width / heads;
    let name = |module: &str| format!("{prefix}{module}");
    let norm = |x: &T, module: &str| {
        let weight = weights.get(&name(&format!("{module}.weight")))?;
        x.layer_norm(weight, weights.get(&name(&format!("{module}.bias")))?, config.layer_norm_eps)
    };
    let words = weights.embed(&name("embeddings.word_embeddings"), texts)?;
    let positions = weights.get(&name("embeddings.position_embeddings.weight"))?.narrow(0, 0, length)?;
    let types = weights.get(&name("embeddings.token_type_embeddings.weight"))?.narrow(0, 0, 1)?;
    let x = words.add(&positions.add(&types)?)?;
    let mut x = norm(&x, "embeddings.LayerNorm")?;
    let scope = Scope { lengths: texts.lengths(), causal: false };
    for layer in 0..config.num_hidden_layers {
        let module = |part: &str| format!("{}.{part}", layer_name(layer));
        let split = |part: &str| {
            let y = weights.linear(&name(&module(&format!("attention.self.{part}"))), &x)?;
            y.reshape(&[rows, length, heads, head])?.swap_axes(1, 2)
        };
        let scale = 1.0 / (head as f32).sqrt();
        let mixed = T::attention(&split("query")?, &split("key")?, &split("value")?, &scope, scale)?;
        let mixed = mixed.swap_axes(1, 2)?.reshape(&[rows, length, width])?;
        let attended = weights.linear(&name(&module("attention.output.dense")), &mixed)?;
        x = norm(&x.add(&attended)?, &module("attention.output.LayerNorm"))?;
        let inner = weights.linear(&name(&module("intermediate.dense")), &x)?.gelu()?;
        let outer = weights.linear(&name(&module("output.dense")), &inner)?;
        x = norm(&x.add(&outer)?, &module("output.LayerNorm"))?;
    }
    x.mean_tokens(&scope.lengths)
}

/// Every weight that the forward pass takes, and its shape; `prefix` goes before each name.
pub fn weights(config: &Config, prefix: &str) -> Vec<Weight> {
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    let table = |name: &str, rows: usize| (format!("embeddings.{name}_embeddings.weight"), vec![rows, width]);
    let mut all = vec![
        table("word", config.vocab_size),
        table("position", config.max_position_embeddings),
        table("token_type", config.type_vocab_size),
    ];
    let norm = |module: String| ["weight", "bias"].map(|part| (format!("{module}.{part}"), vec![width]));
    all.extend(norm("embeddings.LayerNorm".to_owned()));
    for layer in 0..config.num_hidden_layers {
        let module = |part: &str| format!("{}.{part}", layer_name(layer));
        for (part, out, read) in [
            ("attention.self.query", width, width),
            ("attention.self.key", width, width),
            ("attention.self.value", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ] {
            all.push((module(&format!("{part}.weight")), vec![out, read]));
            all.push((module(&format!("{part}.bias")), vec![out]));
        }
        all.extend(norm(module("attention.output.LayerNorm")));
        all.extend(norm(module("output.LayerNorm")));
    }
    all.into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect()
}
