//! Llama: Touvron et al., 2023, with grouped queries (Llama 2) and tied embeddings where the configuration says so.
//! Names and configuration are Hugging Face's `LlamaForCausalLM`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fit::Weight;
use super::weights::Weights;
use crate::backend::{BackendError, Result, Scope, Tensor, Texts, segments};
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

    pub(crate) fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    pub(crate) fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    /// What scores are multiplied by.
    fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Refuses texts longer than the model reads.
    fn check_length(&self, tokens: usize) -> Result<()> {
        if tokens <= self.max_position_embeddings {
            return Ok(());
        }
        let most = self.max_position_embeddings;
        Err(BackendError::Library(format!("{tokens} tokens, and the model reads {most} at most")))
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

impl<T> Cache<T> {
    /// Of keys and values of so many tokens, layer by layer.
    pub fn new(layers: Vec<(T, T)>, tokens: usize) -> Self {
        Self { layers, tokens }
    }

    /// The keys and values, layer by layer.
    pub fn into_layers(self) -> Vec<(T, T)> {
        self.layers
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { layers: Vec::new(), tokens: 0 }
    }
}

/// The vectors before the last matrix, normed: of texts that come after what the cache holds, all of one length ->
/// [texts, length, width].
pub fn encode<T: Tensor>(weights: &Weights<T>, config: &Config, texts: &Texts, cache: &mut Cache<T>) -> Result<T> {
    let (length, before) = (texts.longest(), cache.tokens);
    config.check_length(before + length)?;
    let scope = Scope { lengths: texts.lengths_after(before), causal: true };
    let mut mix = |layer: usize, q: T, k: T, mut v: T| {
        let q = q.rope(before, config.rope_theta)?;
        let mut k = k.rope(before, config.rope_theta)?;
        if let Some((keys, values)) = cache.layers.get(layer) {
            k = T::concat(&[keys.clone(), k], 2)?;
            v = T::concat(&[values.clone(), v], 2)?;
        }
        let kept = (k.clone(), v.clone());
        match cache.layers.get_mut(layer) {
            Some(place) => *place = kept,
            None => cache.layers.push(kept),
        }
        T::attention(&q, &k, &v, &scope, config.scale())
    };
    let mut x = weights.embed(EMBEDDING, texts)?;
    for number in 0..config.num_hidden_layers {
        x = layer(weights, config, number, &x, &mut mix)?;
    }
    cache.tokens += length;
    norm(weights, config, &x, NORM)
}

/// A pass over texts in its stages, without a cache: what is before the layers, each layer, what is after them. Whoever takes
/// them one by one holds no more than one at a time.
pub struct Stages<'a> {
    config: &'a Config,
    /// Tokens of all rows.
    ids: Vec<u32>,
    rows: usize,
    /// Of the texts.
    lengths: Vec<usize>,
    packed: bool,
}

impl<'a> Stages<'a> {
    /// Of rows of token ids, padded at their ends to the longest; packed, all in one row, one after the other without
    /// padding, and none sees another.
    pub fn new(config: &'a Config, ids: &[Vec<u32>], packed: bool) -> Result<Self> {
        let lengths: Vec<usize> = ids.iter().map(Vec::len).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        config.check_length(longest)?;
        let (flat, rows) = if packed { (ids.concat(), 1) } else { (Texts::new(ids).padded(), ids.len()) };
        Ok(Self { config, ids: flat, rows, lengths, packed })
    }

    /// Layers.
    pub fn depth(&self) -> usize {
        self.config.num_hidden_layers
    }

    /// Where each text begins, among all tokens of [`Self::end`].
    pub fn begins(&self) -> Vec<usize> {
        if self.packed {
            return segments(&self.lengths).map(|(start, _)| start).collect();
        }
        let length = self.ids.len() / self.rows.max(1);
        (0..self.rows).map(|row| row * length).collect()
    }

    /// What the first layer reads: [rows, length, width].
    pub fn begin<T: Tensor>(&self, weights: &Weights<T>) -> Result<T> {
        let shape = [self.rows, self.ids.len() / self.rows.max(1), self.config.hidden_size];
        weights.rows(EMBEDDING, &self.ids)?.reshape(&shape)
    }

    /// One layer: -> as x.
    pub fn layer<T: Tensor>(&self, weights: &Weights<T>, number: usize, x: &T) -> Result<T> {
        let (base, scale) = (self.config.rope_theta, self.config.scale());
        layer(weights, self.config, number, x, &mut |_, q, k, v| {
            if self.packed {
                let (q, k) = (q.rope_packed(&self.lengths, base)?, k.rope_packed(&self.lengths, base)?);
                return T::attention_packed(&q, &k, &v, &self.lengths, scale);
            }
            let scope = Scope { lengths: self.lengths.clone().into(), causal: true };
            T::attention(&q.rope(0, base)?, &k.rope(0, base)?, &v, &scope, scale)
        })
    }

    /// The vectors before the last matrix, normed: -> [rows * length, width].
    pub fn end<T: Tensor>(&self, weights: &Weights<T>, x: &T) -> Result<T> {
        norm(weights, self.config, x, NORM)?.reshape(&[self.ids.len(), self.config.hidden_size])
    }

    /// All of them.
    pub fn run<T: Tensor>(&self, weights: &Weights<T>) -> Result<T> {
        let mut x = self.begin(weights)?;
        for number in 0..self.depth() {
            x = self.layer(weights, number, &x)?;
        }
        self.end(weights, &x)
    }
}

/// The module of the tokens' vectors.
pub const EMBEDDING: &str = "model.embed_tokens";
/// The module of the last norm.
pub const NORM: &str = "model.norm";

/// The module of a layer.
pub fn layer_name(number: usize) -> String {
    format!("model.layers.{number}")
}

/// What a layer makes of its queries, keys and values, [rows, heads, length, head width] each: positions and attention.
type Mix<'a, T> = dyn FnMut(usize, T, T, T) -> Result<T> + 'a;

fn norm<T: Tensor>(weights: &Weights<T>, config: &Config, x: &T, module: &str) -> Result<T> {
    weights.rounded(&x.rms_norm(weights.get(&format!("{module}.weight"))?, config.rms_norm_eps)?)
}

/// One layer: [rows, length, width] -> the same.
fn layer<T: Tensor>(weights: &Weights<T>, config: &Config, number: usize, x: &T, mix: &mut Mix<'_, T>) -> Result<T> {
    let (shape, head) = (x.shape(), config.head_width());
    let (rows, length) = (shape[0], shape[1]);
    let module = |part: &str| format!("{}.{part}", layer_name(number));
    let y = norm(weights, config, x, &module("input_layernorm"))?;
    let split = |part: &str, heads: usize| {
        let y = weights.linear(&module(&format!("self_attn.{part}_proj")), &y)?;
        y.reshape(&[rows, length, heads, head])?.swap_axes(1, 2)
    };
    let q = split("q", config.num_attention_heads)?;
    let (k, v) = (split("k", config.kv_heads())?, split("v", config.kv_heads())?);
    let mixed = mix(number, q, k, v)?;
    let mixed = mixed.swap_axes(1, 2)?.reshape(&[rows, length, config.num_attention_heads * head])?;
    let x = x.add(&weights.linear(&module("self_attn.o_proj"), &mixed)?)?;
    let y = norm(weights, config, &x, &module("post_attention_layernorm"))?;
    let gate = weights.linear(&module("mlp.gate_proj"), &y)?;
    let inner = gate.swiglu(&weights.linear(&module("mlp.up_proj"), &y)?)?;
    x.add(&weights.linear(&module("mlp.down_proj"), &inner)?)
}

/// Modules of a layer that read the same, and the one before them that could give it otherwise: with its outputs divided by
/// scales and the readers' inputs multiplied by them, the model computes the same.
#[derive(Clone, Debug)]
pub struct Fold {
    /// A norm, or a matrix whose rows give the inputs.
    pub before: String,
    /// Matrices.
    pub readers: Vec<String>,
    /// For each input, the output of `before` that it is.
    pub outputs: Vec<usize>,
    /// Whether `before` is a norm.
    pub of_norm: bool,
}

/// Where the scales of a layer's inputs can go: all of its matrices are read.
pub fn folds(config: &Config, number: usize) -> [Fold; 4] {
    let module = |part: &str| format!("{}.{part}", layer_name(number));
    let fold = |before: &str, readers: &[&str], outputs: Vec<usize>| Fold {
        before: module(before),
        readers: readers.iter().map(|reader| module(reader)).collect(),
        outputs,
        of_norm: before.ends_with("norm"),
    };
    let (head, width) = (config.head_width(), config.hidden_size);
    // Heads of queries that share one of values: their mixed values come from the same rows.
    let shared = config.num_attention_heads / config.kv_heads();
    let mixed = (0..config.num_attention_heads * head).map(|at| at / head / shared * head + at % head).collect();
    [
        fold("input_layernorm", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], (0..width).collect()),
        fold("self_attn.v_proj", &["self_attn.o_proj"], mixed),
        fold("post_attention_layernorm", &["mlp.gate_proj", "mlp.up_proj"], (0..width).collect()),
        // The unit between gates the other factor.
        fold("mlp.up_proj", &["mlp.down_proj"], (0..config.intermediate_size).collect()),
    ]
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
    if config.tie_word_embeddings { EMBEDDING } else { "lm_head" }
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
