//! Models so small that a step takes a millisecond.

use std::collections::BTreeMap;

use effai::backend::arrays::{Array, Arrays};
use effai::backend::rng::Rng;
use effai::format::tensors;
use effai::model::fit::Weight;
use effai::model::{Config, bert, clip, llama};
use serde_json::{Value, json};

use super::Project;

pub(crate) const WIDTH: usize = 16;
/// Every byte, and what ends a text.
const TOKENS: usize = 257;

/// The files of a model in Hugging Face's layout, to be spoilt one by one.
pub(crate) struct Tiny {
    pub(crate) arrays: Arrays,
    pub(crate) config: Value,
    pub(crate) tokenizer: Value,
}

impl Tiny {
    /// A Llama of two layers whose tokens are bytes.
    pub(crate) fn llama() -> Self {
        Self::of(json!({
            "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": TOKENS, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "eos_token_id": 256, "hidden_act": "silu",
        }))
    }

    /// A sentence encoder of one layer whose tokens are bytes.
    pub(crate) fn bert() -> Self {
        Self::of(json!({
            "model_type": "bert", "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": TOKENS, "max_position_embeddings": 64, "layer_norm_eps": 1e-12,
        }))
    }

    /// A picture-text model of one layer each, whose pictures are of 20 pixels a side.
    pub(crate) fn clip() -> Self {
        let tower = |more: Value| {
            let mut tower = json!({
                "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            });
            tower.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            tower
        };
        Self::of(json!({
            "model_type": "clip", "projection_dim": 6,
            "text_config": tower(json!({ "vocab_size": TOKENS, "max_position_embeddings": 64, "eos_token_id": 256 })),
            "vision_config": tower(json!({ "image_size": 20, "patch_size": 5 })),
        }))
    }

    /// Of this configuration, with random weights.
    pub(crate) fn of(config: Value) -> Self {
        let weights = match serde_json::from_value(config.clone()).expect("a configuration") {
            Config::Llama(config) => llama::weights(&config),
            Config::Bert(config) => bert::weights(&config, ""),
            Config::Clip(config) => clip::weights(&config),
            other => panic!("{other:?}"),
        };
        Self { arrays: weights.into_iter().map(random).collect(), config, tokenizer: tokenizer() }
    }

    pub(crate) fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("config.json", self.config.to_string().into_bytes()),
            ("tokenizer.json", self.tokenizer.to_string().into_bytes()),
            ("model.safetensors", safetensors(&self.arrays)),
        ]
    }

    /// As an archive, with more files.
    pub(crate) fn pack(&self, project: &Project, archive: &str, more: &[(&str, &str)]) {
        let own = self.files();
        let own = own.iter().map(|(name, bytes)| (*name, bytes.as_slice()));
        let files: Vec<(&str, &[u8])> = own.chain(more.iter().map(|(name, text)| (*name, text.as_bytes()))).collect();
        project.archive(archive, &files);
    }
}

fn random((name, shape): Weight) -> (String, Array) {
    let seed = name.strip_prefix("model.").unwrap_or(&name);
    let mut rng = Rng::new(1, seed.strip_suffix(".weight").unwrap_or(seed));
    let values = (0..shape.iter().product()).map(|_| 0.3 * rng.normal()).collect();
    (name, Array::f32(&shape, values))
}

/// The bytes of a file of weights.
pub(crate) fn safetensors(arrays: &Arrays) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("made");
    let path = dir.path().join("w");
    tensors::write(&path, arrays, &[("format", "pt")]).expect("written");
    std::fs::read(&path).expect("there")
}

/// Byte-level BPE without merges.
fn tokenizer() -> Value {
    // GPT-2's letters for bytes: those that print stand for themselves, the others come after.
    let prints = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256u32).filter(|byte| !prints(byte)).zip(256..);
    let letters: BTreeMap<u32, u32> = (0..256u32).filter(prints).map(|byte| (byte, byte)).chain(others).collect();
    let vocab: serde_json::Map<String, Value> = letters
        .iter()
        .map(|(byte, letter)| (char::from_u32(*letter).expect("a letter").to_string(), (*byte).into()))
        .chain([("<end>".to_owned(), 256.into())])
        .collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "added_tokens": [{
            "id": 256, "content": "<end>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false,
        }],
        "pre_tokenizer": bytes, "decoder": bytes, "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
}

/// The target `m`: a Llama from the archive `tiny.zip`.
pub(crate) const MODEL: &str = r#"model "m" { source path="tiny.zip" { weights "model.safetensors"; config "config.json"; tokenizer "tokenizer.json"; }; architecture "llama"; }"#;

/// The dataset `d`: some words to learn.
pub(crate) const DATA: &str = r#"dataset "d" {
    files "own" { glob "words.jsonl"; }
    records "own" from="own" file="words.jsonl" { column "prompt" value="{p}"; column "completion" value="{c}"; }
    split train=0.8 validation=0.2 test=0.0
}"#;

/// A project with the model, some words to learn, and an adapter; `train` and `method` go into that.
pub(crate) fn project(method: &str, train: &str) -> Project {
    let adapter = format!(
        r#"adapter "a" {{
    base "m"
    method {method}
    target-modules "q_proj" "v_proj"
    train "d" {{ loss "next-token"; batch 4; learning-rate 1e-2; warmup 2; evaluate-every 2; {train}; }}
}}"#
    );
    let project = Project::new(&format!("{MODEL}\n{DATA}\n{adapter}\n"));
    Tiny::llama().pack(&project, "tiny.zip", &[]);
    words(&project);
    project
}

/// What `d` is made of.
pub(crate) fn words(project: &Project) {
    let lines: Vec<String> =
        (0..20).map(|i| json!({"p": format!("{i} and {i} are "), "c": (2 * i).to_string()}).to_string()).collect();
    project.write("words.jsonl", &lines.join("\n"));
}
