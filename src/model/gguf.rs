//! A GGUF file as a model in Hugging Face's names: configuration, weights, tokenizer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Config, fit, llama};
use crate::backend::gguf::Gguf;
use crate::failure::Failure;
use crate::format::tensors::{Array, Arrays, Values};

/// The configuration that the file's metadata states.
pub fn config(file: &Gguf) -> Result<Config, Failure> {
    let architecture = file.text("general.architecture").unwrap_or("none");
    if architecture != "llama" {
        return Err(Failure::target(format!("the GGUF file holds a model of architecture `{architecture}`"))
            .help("effai computes `llama`"));
    }
    let number = |key: &str| {
        file.number(&format!("llama.{key}"))
            .ok_or_else(|| Failure::target(format!("the GGUF file does not say `llama.{key}`")))
    };
    let table = file.has("rope_freqs.weight").then_some("llama3");
    let scaling = file.text("llama.rope.scaling.type").filter(|kind| *kind != "none").or(table);
    let heads = number("attention.head_count")?;
    let tokens = file.texts("tokenizer.ggml.tokens").map_or(0, |tokens| tokens.len());
    let config = llama::Config {
        hidden_size: number("embedding_length")?,
        intermediate_size: number("feed_forward_length")?,
        num_hidden_layers: number("block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: Some(file.number("llama.attention.head_count_kv").unwrap_or(heads)),
        head_dim: file.number("llama.attention.key_length"),
        vocab_size: file.number("llama.vocab_size").unwrap_or(tokens),
        max_position_embeddings: number("context_length")?,
        rms_norm_eps: file.float("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5),
        rope_theta: file.float("llama.rope.freq_base").unwrap_or(10_000.0),
        rope_scaling: scaling.map(|kind| json!({ "type": kind })),
        hidden_act: "silu".into(),
        tie_word_embeddings: !file.has("output.weight"),
        bos_token_id: file.number("tokenizer.ggml.bos_token_id").map(|t| t as u32),
        eos_token_id: file.number("tokenizer.ggml.eos_token_id").map(|t| llama::Tokens::One(t as u32)),
        architectures: vec!["LlamaForCausalLM".into()],
    };
    config.check()?;
    Ok(Config::Llama(config))
}

/// The weights under Hugging Face's names: expanded, or as their codes where that is asked for and can be.
pub fn arrays(file: &Gguf, config: &llama::Config, keep_codes: bool) -> Result<Arrays, Failure> {
    let mut arrays = Arrays::new();
    for (name, array) in file.arrays(keep_codes)? {
        let Some(name) = hugging_face(&name) else { continue };
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => Some(config.num_attention_heads),
            Some("k_proj") => Some(config.num_key_value_heads.unwrap_or(config.num_attention_heads)),
            _ => None,
        };
        // One of another shape is refused with its name, by whoever looks whether all fit.
        let array = match heads.filter(|heads| array.shape[0].is_multiple_of(2 * heads)) {
            Some(heads) => straight(array, heads),
            None => array,
        };
        arrays.insert(name, array);
    }
    Ok(arrays)
}

/// Refuses a file whose tensors are not those that its metadata speaks of.
pub fn check(file: &Gguf, config: &Config) -> Result<(), Failure> {
    let shapes: BTreeMap<String, &[usize]> =
        file.shapes().filter_map(|(name, shape)| Some((hugging_face(name)?, shape))).collect();
    fit::check(config, "the file's metadata", &|name| shapes.get(name).map(|shape| shape.to_vec()))
}

/// `blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; none for tables that are computed here.
fn hugging_face(name: &str) -> Option<String> {
    if let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        let (part, end) = part.rsplit_once('.')?;
        let part = match part {
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            "attn_norm" => "input_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            _ => return None,
        };
        return Some(format!("model.layers.{layer}.{part}.{end}"));
    }
    match name {
        "token_embd.weight" => Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => Some("model.norm.weight".into()),
        "output.weight" => Some("lm_head.weight".into()),
        _ => None,
    }
}

/// llama.cpp keeps the two components that turn together side by side, Hugging Face a half apart: its converter moves
/// the rows of queries and keys, and this moves them back.
fn straight(array: Array, heads: usize) -> Array {
    let rows = array.shape[0];
    let size = array.floats().len() / rows.max(1);
    let (width, half) = (rows / heads, rows / heads / 2);
    let order = (0..rows).map(|row| {
        let (head, i) = (row / width, row % width);
        head * width + i % half * 2 + i / half
    });
    if let Values::Codes(matrix) = &array.values {
        return Array::codes(matrix.with_rows(&order.collect::<Vec<_>>()));
    }
    let values = order.flat_map(|from| &array.floats()[from * size..(from + 1) * size]);
    Array::f32(&array.shape, values.copied().collect())
}

/// `tokenizer.json` and `tokenizer_config.json`.
pub fn tokenizer(file: &Gguf) -> Result<(Value, Value), Failure> {
    let lacks =
        |what: &str| Failure::target(format!("the GGUF file has no `{what}`")).help("take one with a tokenizer");
    let model = file.text("tokenizer.ggml.model").ok_or_else(|| lacks("tokenizer.ggml.model"))?;
    if model != "gpt2" {
        return Err(Failure::target(format!("the GGUF file's tokenizer is of the kind `{model}`"))
            .help("effai reads `gpt2` (byte-level BPE); give the model's own tokenizer.json"));
    }
    let tokens = file.texts("tokenizer.ggml.tokens").ok_or_else(|| lacks("tokenizer.ggml.tokens"))?;
    let merges = file.texts("tokenizer.ggml.merges").ok_or_else(|| lacks("tokenizer.ggml.merges"))?;
    let kinds = file.numbers("tokenizer.ggml.token_type").unwrap_or_default();
    let pairs = merges.iter().filter_map(|merge| merge.split_once(' ')).map(|(a, b)| json!([a, b]));
    let added = tokens.iter().enumerate().filter(|(i, _)| matches!(kinds.get(*i), Some(&CONTROL | &USER_DEFINED)));
    let added = added.map(|(i, token)| {
        json!({
            "id": i, "content": token, "special": kinds[i] == CONTROL,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(i, token)| ((*token).to_owned(), i.into())).collect();
    let bytes =
        |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let before = match file.text("tokenizer.ggml.pre").unwrap_or("default") {
        "smollm" => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes(true)]})
        }
        "default" | "gpt-2" => bytes(true),
        "llama-bpe" | "llama3" => json!({"type": "Sequence", "pretokenizers": [split(LLAMA3), bytes(false)]}),
        "qwen2" => json!({"type": "Sequence", "pretokenizers": [split(QWEN2), bytes(false)]}),
        other => {
            return Err(Failure::target(format!(
                "the GGUF file's tokenizer cuts texts as `{other}`, which is not known"
            ))
            .help("give the model's own tokenizer.json"));
        }
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": before, "post_processor": null, "decoder": bytes(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": pairs.collect::<Vec<_>>(),
        },
    });
    let named = |key: &str| file.number(key).and_then(|i| tokens.get(i)).copied();
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": named("tokenizer.ggml.bos_token_id"),
        "eos_token": named("tokenizer.ggml.eos_token_id"),
        "unk_token": named("tokenizer.ggml.unknown_token_id"),
        "pad_token": named("tokenizer.ggml.padding_token_id"),
        "add_bos_token": file.flag("tokenizer.ggml.add_bos_token").unwrap_or(false),
        "clean_up_tokenization_spaces": false,
        "model_max_length": file.number("llama.context_length"),
        "chat_template": file.text("tokenizer.chat_template"),
    });
    Ok((tokenizer, config))
}

/// llama.cpp's token types: never part of a text's own words.
const CONTROL: usize = 3;
/// ... and cut out of a text before it is split.
const USER_DEFINED: usize = 4;

/// How Llama 3's and Qwen 2's tokenizers cut a text, from their `tokenizer.json`.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_moved_back_to_halves() {
        // Two heads of width 4: as llama.cpp has it, 0 and 2, then 1 and 3 are side by side.
        let moved = Array::f32(&[8, 1], vec![0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert_eq!(straight(moved, 2).floats(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn names_are_hugging_faces() {
        assert_eq!(
            hugging_face("blk.3.ffn_norm.weight").as_deref(),
            Some("model.layers.3.post_attention_layernorm.weight")
        );
        assert_eq!(hugging_face("output.weight").as_deref(), Some("lm_head.weight"));
        assert_eq!(hugging_face("rope_freqs.weight"), None);
    }
}
