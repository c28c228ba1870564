//! Llama: Touvron et al., 2023, with grouped queries (Llama 2) and tied embeddings where the configuration says so.
//! Names and configuration are Hugging Face's `LlamaForCausalLM`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fit::Weight;
use super::weights::Weights;
use crate::backend::{BackendError, Result, Scope, Tensor};
use crate::failure::Failure;

/// The fields of `config.json` that the forward pass needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Width.
    pub hidden_size: usize,
    /// Inner width of the feed-forward blocks.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values; as many as of queries where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head, where it is not the width over the heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Tokens known.
    pub vocab_size: usize,
    /// Longest input.
    pub max_position_embeddings: usize,
    /// Of the norms.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    #[serde(default = "ten_thousand")]
    pub rope_theta: f32,
    /// How positions beyond those of the training are scaled; only none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<Value>,
    /// The unit between the feed-forward matrices; only `silu` is known.
    #[serde(default = "silu")]
    pub hidden_act: String,
    /// The last matrix is the embedding's.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Begins a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos_token_id: Option<u32>,
    /// Ends a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<Tokens>,
    /// What Hugging Face's library loads it as.
    #[serde(default = "architectures")]
    pub architectures: Vec<String>,
}

/// One token or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tokens {
    /// One.
    One(u32),
    /// Several.
    Several(Vec<u32>),
}

fn ten_thousand() -> f32 {
    10_000.0
}

fn silu() -> String {
    "silu".into()
}

fn architectures() -> Vec<String> {
    vec!["LlamaForCausalLM".into()]
}

/// A configuration as transformers wrote it before version 5, which moved what it says of positions into `rope_parameters`.
pub fn settle(config: &mut Value) {
    let Some(rope) = config.as_object_mut().and_then(|all| all.remove("rope_parameters")).filter(Value::is_object)
    else {
        return;
    };
    if !rope["rope_theta"].is_null() {
        config["rope_theta"] = rope["rope_theta"].clone();
    }
    if rope["rope_type"].as_str().is_some_and(|kind| kind != "default") {
        config["rope_scaling"] = rope;
    }
}

impl Config {
    /// Refuses what the forward pass would compute otherwise.
    pub fn check(&self) -> std::result::Result<(), Failure> {
        let refuse = |what: String| Err(Failure::target(what).help("effai computes plain Llama models"));
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|s| !s.is_null()) {
            return refuse(format!("the model scales its positions ({scaling}), which is not supported"));
        }
        if self.hidden_act != "silu" {
            return refuse(format!("the model's unit is `{}`, and only `silu` is supported", self.hidden_act));
        }
        if self.num_attention_heads == 0 || !self.num_attention_heads.is_multiple_of(self.kv_heads().max(1)) {
            let (heads, keys) = (self.num_attention_heads, self.kv_heads());
            return refuse(format!("the model has {heads} heads of queries and {keys} of keys, which do not divide"));
        }
        let named = self.bos_token_id.into_iter().chain(self.ends()).find(|token| *token as usize >= self.vocab_size);
        if let Some(token) = named {
            let known = self.vocab_size;
            return Err(Failure::target(format!(
                "config.json begins or ends texts with the token {token}, and the model knows {known}"
            ))
            .help("correct `bos_token_id`, `eos_token_id` or `vocab_size` in config.json"));
        }
        Ok(())
    }

    /// Whether a module of the model's files is of use: some keep what others compute from the configuration.
    pub fn computes_with(&self, module: &str) -> bool {
        module.starts_with("model.") && !module.ends_with(".inv_freq")
            || module == "lm_head" && !self.tie_word_embeddings
    }

    fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// What scores are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Tokens that end a text.
    pub fn ends(&self) -> Vec<u32> {
        match &self.eos_token_id {
            None => Vec::new(),
            Some(Tokens::One(token)) => vec![*token],
            Some(Tokens::Several(tokens)) => tokens.clone(),
        }
    }
}

/// The keys and values of the tokens so far, by layer: [rows, kv heads, tokens, width].
pub struct Cache<T> {
    layers: Vec<(T, T)>,
    tokens: usize,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { layers: Vec::new(), tokens: 0 }
    }
}

/// The vectors before the last matrix, normed: rows of token ids, padded at their ends -> [rows, longest, width].
///
/// With a cache, the ids are those that come after what it holds, and all rows are of one length.
pub fn encode<T: Tensor>(
    weights: &Weights<T>,
    config: &Config,
    ids: &[Vec<u32>],
    mut cache: Option<&mut Cache<T>>,
) -> Result<T> {
    let (rows, length) = (ids.len(), ids.iter().map(Vec::len).max().unwrap_or(0));
    let before = cache.as_ref().map_or(0, |cache| cache.tokens);
    if before + length > config.max_position_embeddings {
        return Err(BackendError::Library(format!(
            "{} tokens, and the model reads {} at most",
            before + length,
            config.max_position_embeddings
        )));
    }
    let mut flat = vec![0u32; rows * length];
    for (row, ids) in ids.iter().enumerate() {
        flat[row * length..][..ids.len()].copy_from_slice(ids);
    }
    let scope = Scope { lengths: ids.iter().map(|ids| before + ids.len()).collect(), causal: true };
    let x = layers(weights, config, &flat, rows, &mut |layer, q, k, mut v| {
        let q = q.rope(before, config.rope_theta)?;
        let mut k = k.rope(before, config.rope_theta)?;
        if let Some(cache) = cache.as_deref_mut() {
            if let Some((keys, values)) = cache.layers.get(layer) {
                k = T::concat(&[keys.clone(), k], 2)?;
                v = T::concat(&[values.clone(), v], 2)?;
            }
            let kept = (k.clone(), v.clone());
            match cache.layers.get_mut(layer) {
                Some(place) => *place = kept,
                None => cache.layers.push(kept),
            }
        }
        T::attention(&q, &k, &v, &scope, config.scale())
    })?;
    if let Some(cache) = cache {
        cache.tokens += length;
    }
    Ok(x)
}

/// As [`encode`], of texts that lie one after the other without padding: -> [tokens, width]. None sees another.
pub fn encode_packed<T: Tensor>(weights: &Weights<T>, config: &Config, ids: &[Vec<u32>]) -> Result<T> {
    let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
    let flat = ids.concat();
    let x = layers(weights, config, &flat, 1, &mut |_, q, k, v| {
        let (q, k) = (q.rope_packed(&lengths, config.rope_theta)?, k.rope_packed(&lengths, config.rope_theta)?);
        T::attention_packed(&q, &k, &v, &lengths, config.scale())
    })?;
    x.reshape(&[flat.len(), config.hidden_size])
}

/// What a layer makes of its queries, keys and values, [rows, heads, length, head width] each: positions and attention.
type Mix<'a, T> = dyn FnMut(usize, T, T, T) -> Result<T> + 'a;

/// All layers and the last norm: tokens [rows * length] -> [rows, length, width].
fn layers<T: Tensor>(
    weights: &Weights<T>,
    config: &Config,
    ids: &[u32],
    rows: usize,
    mix: &mut Mix<'_, T>,
) -> Result<T> {
    let (width, head, length) = (config.hidden_size, config.head_width(), ids.len() / rows.max(1));
    let mut x = weights.rows("model.embed_tokens", ids)?.reshape(&[rows, length, width])?;
    let norm = |x: &T, module: &str| x.rms_norm(weights.get(&format!("{module}.weight"))?, config.rms_norm_eps);
    for layer in 0..config.num_hidden_layers {
        let module = |part: &str| format!("model.layers.{layer}.{part}");
        let y = norm(&x, &module("input_layernorm"))?;
        let split = |part: &str, heads: usize| {
            let y = weights.linear(&module(&format!("self_attn.{part}_proj")), &y)?;
            y.reshape(&[rows, length, heads, head])?.swap_axes(1, 2)
        };
        let q = split("q", config.num_attention_heads)?;
        let (k, v) = (split("k", config.kv_heads())?, split("v", config.kv_heads())?);
        let mixed = mix(layer, q, k, v)?;
        let mixed = mixed.swap_axes(1, 2)?.reshape(&[rows, length, config.num_attention_heads * head])?;
        x = x.add(&weights.linear(&module("self_attn.o_proj"), &mixed)?)?;
        let y = norm(&x, &module("post_attention_layernorm"))?;
        let gate = weights.linear(&module("mlp.gate_proj"), &y)?;
        let inner = gate.swiglu(&weights.linear(&module("mlp.up_proj"), &y)?)?;
        x = x.add(&weights.linear(&module("mlp.down_proj"), &inner)?)?;
    }
    norm(&x, "model.norm")
}

/// Every weight that the forward pass takes, and its shape.
pub fn weights(config: &Config) -> Vec<Weight> {
    let (width, inner, head) = (config.hidden_size, config.intermediate_size, config.head_width());
    let (queries, keys) = (config.num_attention_heads * head, config.kv_heads() * head);
    let mut all = vec![("model.embed_tokens".to_owned(), vec![config.vocab_size, width])];
    for layer in 0..config.num_hidden_layers {
        let parts = [
            ("input_layernorm", vec![width]),
            ("self_attn.q_proj", vec![queries, width]),
            ("self_attn.k_proj", vec![keys, width]),
            ("self_attn.v_proj", vec![keys, width]),
            ("self_attn.o_proj", vec![width, queries]),
            ("post_attention_layernorm", vec![width]),
            ("mlp.gate_proj", vec![inner, width]),
            ("mlp.up_proj", vec![inner, width]),
            ("mlp.down_proj", vec![width, inner]),
        ];
        all.extend(parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}"), shape)));
    }
    all.push(("model.norm".to_owned(), vec![width]));
    if !config.tie_word_embeddings {
        all.push((self::head(config).to_owned(), vec![config.vocab_size, width]));
    }
    all.into_iter().map(|(module, shape)| (format!("{module}.weight"), shape)).collect()
}

/// The module of the last matrix, [vocabulary, width].
pub fn head(config: &Config) -> &'static str {
    if config.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn positions_are_read_from_where_either_version_wrote_them() {
        let read = |more: Value| -> Config {
            let mut config = json!({
                "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
                "vocab_size": 9, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
            });
            config.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            settle(&mut config);
            serde_json::from_value(config).expect("fits")
        };
        assert_eq!(read(json!({})).rope_theta, 10_000.0);
        assert_eq!(read(json!({"rope_theta": 500.0})).rope_theta, 500.0);
        let newer = read(json!({"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}));
        assert!(newer.rope_theta == 500.0 && newer.check().is_ok());
        let scaled = read(json!({"rope_parameters": {"rope_theta": 500.0, "rope_type": "llama3", "factor": 8.0}}));
        assert!(scaled.check().is_err());
    }
}
