//! A GGUF file as a model in Hugging Face's names: configuration, weights, tokenizer.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::{Config, fit, llama};
use crate::backend::arrays::{Array, Arrays, Values};
use crate::backend::blocks::Blocks;
use crate::backend::gguf::{Fact, Gguf};
use crate::failure::Failure;
use crate::util::fs;

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

/// Parts of a layer: llama.cpp's names and Hugging Face's.
const PARTS: &[(&str, &str)] = &[
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
];

/// `blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`; none for tables that are computed here.
fn hugging_face(name: &str) -> Option<String> {
    if let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        let (part, end) = part.rsplit_once('.')?;
        let (_, part) = PARTS.iter().find(|(theirs, _)| *theirs == part)?;
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
    let rows: Vec<&[f32]> = order.map(|from| &array.floats()[from * size..(from + 1) * size]).collect();
    Array::f32(&array.shape, rows.concat())
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
    let cuts = file.text("tokenizer.ggml.pre").unwrap_or("default");
    let before = before(cuts).ok_or_else(|| {
        Failure::target(format!("the GGUF file's tokenizer cuts texts as `{cuts}`, which is not known"))
            .help("give the model's own tokenizer.json")
    })?;
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

/// Bytes as letters, cut by GPT-2's pattern or not.
fn bytes(regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex})
}

/// The ways of cutting texts that are known, by llama.cpp's names, the one that is written first of equals.
const BEFORE: &[&str] = &["smollm", "gpt-2", "default", "llama-bpe", "llama3", "qwen2"];

/// How a tokenizer cuts texts, by llama.cpp's name of it.
fn before(name: &str) -> Option<Value> {
    let split =
        |regex: &str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    Some(match name {
        "smollm" => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes(true)]})
        }
        "default" | "gpt-2" => bytes(true),
        "llama-bpe" | "llama3" => json!({"type": "Sequence", "pretokenizers": [split(LLAMA3), bytes(false)]}),
        "qwen2" => json!({"type": "Sequence", "pretokenizers": [split(QWEN2), bytes(false)]}),
        _ => return None,
    })
}

/// The facts of a file that holds a model of Hugging Face's layout: its shape and its tokenizer.
pub fn facts(config: &llama::Config, tokenizer: &Value, about: &Value) -> Result<Vec<(String, Fact)>, Failure> {
    let number = |n: usize| Fact::Number(n as u32);
    let heads = config.num_attention_heads;
    let width = config.head_dim.unwrap_or(config.hidden_size / heads);
    let mut facts: Vec<(&str, Fact)> = vec![
        ("general.architecture", Fact::Text("llama".into())),
        ("general.quantization_version", Fact::Number(2)),
        ("llama.vocab_size", number(config.vocab_size)),
        ("llama.context_length", number(config.max_position_embeddings)),
        ("llama.embedding_length", number(config.hidden_size)),
        ("llama.block_count", number(config.num_hidden_layers)),
        ("llama.feed_forward_length", number(config.intermediate_size)),
        ("llama.attention.head_count", number(heads)),
        ("llama.attention.head_count_kv", number(config.num_key_value_heads.unwrap_or(heads))),
        ("llama.attention.key_length", number(width)),
        ("llama.attention.value_length", number(width)),
        ("llama.rope.dimension_count", number(width)),
        ("llama.rope.freq_base", Fact::Float(config.rope_theta)),
        ("llama.attention.layer_norm_rms_epsilon", Fact::Float(config.rms_norm_eps)),
    ];
    facts.extend(tokenizer_facts(config, tokenizer, about)?);
    Ok(facts.into_iter().map(|(key, fact)| (key.to_owned(), fact)).collect())
}

/// The facts of a file of the model that lies in a directory, with a name of its own.
pub fn facts_of(dir: &Path, config: &llama::Config, name: &str) -> Result<Vec<(String, Fact)>, Failure> {
    let read = |name: &str| -> Result<Value, Failure> {
        let path = dir.join(name);
        if !path.exists() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&fs::read_text(&path)?).map_err(|e| Failure::target(format!("{}: {e}", path.display())))
    };
    let mut facts = facts(config, &read("tokenizer.json")?, &read("tokenizer_config.json")?)?;
    facts.push(("general.name".into(), Fact::Text(name.to_owned())));
    Ok(facts)
}

/// What a matrix with rows of `inner` weights is written in where a file has blocks of `form`: what is wanted, and what its
/// rows allow, if anything. As llama.cpp's own quantizer has it, what the logits are computed by is 6 bits at the least.
pub fn form_of(module: &str, inner: usize, form: Blocks, config: &llama::Config) -> (Blocks, Option<Blocks>) {
    let wanted = if module == llama::head(config) && form != Blocks::Q8_0 { Blocks::Q6K } else { form };
    (wanted, wanted.for_rows_of(inner))
}

fn tokenizer_facts(
    config: &llama::Config,
    tokenizer: &Value,
    about: &Value,
) -> Result<Vec<(&'static str, Fact)>, Failure> {
    let refuse = |what: &str| {
        Failure::target(format!("the model's tokenizer {what}, which GGUF files are not written of"))
            .help("effai writes byte-level BPE as SmolLM, GPT-2, Llama 3 and Qwen 2 have it")
    };
    let model = &tokenizer["model"];
    let vocab = model["vocab"].as_object().filter(|_| model["type"] == "BPE").ok_or_else(|| refuse("is no BPE"))?;
    let before = BEFORE
        .iter()
        .find(|name| before(name).is_some_and(|pieces| same_pieces(&pieces, &tokenizer["pre_tokenizer"])))
        .ok_or_else(|| refuse("cuts texts in a way of its own"))?;
    let mut tokens: Vec<Option<&str>> = vec![None; config.vocab_size];
    let mut kinds = vec![NORMAL as i32; config.vocab_size];
    let added = tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let added =
        added.iter().filter_map(|token| Some((token["content"].as_str()?, token["id"].as_u64()? as usize, token)));
    let words = vocab.iter().filter_map(|(word, id)| Some((word.as_str(), id.as_u64()? as usize)));
    for (word, id) in words.chain(added.clone().map(|(word, id, _)| (word, id))) {
        *tokens
            .get_mut(id)
            .ok_or_else(|| refuse(&format!("has the token {id} beyond the model's {}", config.vocab_size)))? =
            Some(word);
    }
    for (_, id, token) in added {
        kinds[id] = if token["special"] == true { CONTROL } else { USER_DEFINED } as i32;
    }
    // Rows of the matrix that no token has.
    let spare = |id: usize| format!("[PAD{id}]");
    let names: Vec<String> =
        tokens.iter().enumerate().map(|(id, t)| t.map_or_else(|| spare(id), str::to_owned)).collect();
    for (id, _) in tokens.iter().enumerate().filter(|(_, token)| token.is_none()) {
        kinds[id] = UNUSED as i32;
    }
    let merge = |merge: &Value| match merge {
        Value::String(text) => Some(text.clone()),
        other => Some(format!("{} {}", other[0].as_str()?, other[1].as_str()?)),
    };
    let merges = model["merges"].as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(merge).collect();
    let id_of = |key: &str| {
        // A name, or an object with one.
        let name = about[key].as_str().or_else(|| about[key]["content"].as_str())?;
        names.iter().position(|token| token == name).map(|id| Fact::Number(id as u32))
    };
    let mut facts = vec![
        ("tokenizer.ggml.model", Fact::Text("gpt2".into())),
        ("tokenizer.ggml.pre", Fact::Text((*before).into())),
        ("tokenizer.ggml.merges", Fact::Texts(merges)),
        ("tokenizer.ggml.add_bos_token", Fact::Flag(about["add_bos_token"] == true)),
    ];
    let configured = |id: Option<u32>| id.map(Fact::Number);
    let ends = config.ends().first().copied();
    for (key, fact) in [
        ("tokenizer.ggml.bos_token_id", id_of("bos_token").or_else(|| configured(config.bos_token_id))),
        ("tokenizer.ggml.eos_token_id", id_of("eos_token").or_else(|| configured(ends))),
        ("tokenizer.ggml.unknown_token_id", id_of("unk_token")),
        ("tokenizer.ggml.padding_token_id", id_of("pad_token")),
    ] {
        facts.extend(fact.map(|fact| (key, fact)));
    }
    facts.push(("tokenizer.ggml.token_type", Fact::Numbers(kinds)));
    facts.push(("tokenizer.ggml.tokens", Fact::Texts(names.clone())));
    if let Some(template) = about["chat_template"].as_str() {
        facts.push(("tokenizer.chat_template", Fact::Text(template.into())));
    }
    Ok(facts)
}

/// Whether two ways of cutting texts are the same: of either only what decides.
fn same_pieces(a: &Value, b: &Value) -> bool {
    let parts = |value: &Value| -> Vec<Value> {
        let one = std::slice::from_ref(value);
        let all = value["pretokenizers"].as_array().map_or(one, Vec::as_slice);
        let keys = ["type", "individual_digits", "use_regex", "pattern", "behavior"];
        all.iter().map(|part| keys.iter().map(|key| part[key].clone()).collect()).collect()
    };
    parts(a) == parts(b)
}

/// A matrix or a vector under llama.cpp's name and in its order of rows; none where it has no place in a file.
pub fn outward(name: &str, array: &Array, config: &llama::Config) -> Option<(String, Array)> {
    let theirs = llama_cpp(name)?;
    let heads = match name.rsplit('.').nth(1) {
        Some("q_proj") => config.num_attention_heads,
        Some("k_proj") => config.num_key_value_heads.unwrap_or(config.num_attention_heads),
        _ => return Some((theirs, array.clone())),
    };
    let rows = array.shape[0];
    let size = array.floats().len() / rows.max(1);
    let (width, half) = (rows / heads, rows / heads / 2);
    // The reverse of `straight`.
    let order = (0..rows).map(|row| {
        let (head, i) = (row / width, row % width);
        head * width + i % 2 * half + i / 2
    });
    let rows: Vec<&[f32]> = order.map(|from| &array.floats()[from * size..(from + 1) * size]).collect();
    Some((theirs, Array::f32(&array.shape, rows.concat())))
}

/// `model.layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`.
fn llama_cpp(name: &str) -> Option<String> {
    let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next());
    let candidates = ["token_embd.weight", "output_norm.weight", "output.weight"].map(str::to_owned);
    let parts = PARTS.iter().map(|(theirs, _)| format!("blk.{}.{theirs}.weight", layer.unwrap_or("0")));
    parts.chain(candidates).find(|theirs| hugging_face(theirs).as_deref() == Some(name))
}

/// llama.cpp's token types: an ordinary one.
const NORMAL: usize = 1;
/// ... a row that no token has.
const UNUSED: usize = 5;
/// ... never part of a text's own words.
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
        let back = straight(moved.clone(), 2);
        assert_eq!(back.floats(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let config = serde_json::from_value(json!({
            "hidden_size": 1, "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 4,
            "vocab_size": 1, "max_position_embeddings": 1, "rms_norm_eps": 1e-5,
        }));
        let (name, again) =
            outward("model.layers.0.self_attn.q_proj.weight", &back, &config.expect("fits")).expect("has a place");
        assert_eq!((name.as_str(), again), ("blk.0.attn_q.weight", moved));
    }

    #[test]
    fn names_are_hugging_faces() {
        assert_eq!(
            hugging_face("blk.3.ffn_norm.weight").as_deref(),
            Some("model.layers.3.post_attention_layernorm.weight")
        );
        assert_eq!(hugging_face("output.weight").as_deref(), Some("lm_head.weight"));
        assert_eq!(hugging_face("rope_freqs.weight"), None);
        for name in ["model.layers.12.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight"] {
            assert_eq!(llama_cpp(name).and_then(|theirs| hugging_face(&theirs)).as_deref(), Some(name));
        }
        assert_eq!(llama_cpp("model.layers.0.self_attn.rotary_emb.inv_freq"), None);
    }
}
