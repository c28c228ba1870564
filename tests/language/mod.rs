//! Language models, on one so small that a step takes a millisecond.

mod backends;
mod imported;
mod methods;
mod reports;

use std::collections::BTreeMap;

use effai::backend::rng::Rng;
use effai::format::tensors::{self, Array, Arrays};
use serde_json::{Value, json};

use crate::support::Project;

const WIDTH: usize = 16;
/// Every byte, and what ends a text.
const TOKENS: usize = 257;

/// A Llama of two layers whose tokens are bytes, in Hugging Face's layout, as the archive `tiny.zip`.
fn tiny(project: &Project) {
    tiny_with(project, &[]);
}

/// The same, with more files.
fn tiny_with(project: &Project, more: &[(&str, &str)]) {
    let mut arrays = Arrays::new();
    let mut add = |name: &str, shape: &[usize]| {
        let mut rng = Rng::new(1, name);
        let values = (0..shape.iter().product()).map(|_| 0.3 * rng.normal()).collect();
        arrays.insert(format!("model.{name}.weight"), Array::f32(shape, values));
    };
    add("embed_tokens", &[TOKENS, WIDTH]);
    add("norm", &[WIDTH]);
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| add(&format!("layers.{layer}.{name}"), shape);
        add("self_attn.q_proj", &[WIDTH, WIDTH]);
        add("self_attn.k_proj", &[WIDTH / 2, WIDTH]);
        add("self_attn.v_proj", &[WIDTH / 2, WIDTH]);
        add("self_attn.o_proj", &[WIDTH, WIDTH]);
        add("mlp.gate_proj", &[32, WIDTH]);
        add("mlp.up_proj", &[32, WIDTH]);
        add("mlp.down_proj", &[WIDTH, 32]);
        add("input_layernorm", &[WIDTH]);
        add("post_attention_layernorm", &[WIDTH]);
    }
    let dir = tempfile::tempdir().expect("made");
    let path = dir.path().join("w");
    tensors::write(&path, &arrays, &[("format", "pt")]).expect("written");
    let tokenizer = tokenizer().to_string();
    let weights = std::fs::read(&path).expect("there");
    let config = config(64);
    let mut files: Vec<(&str, &[u8])> = vec![
        ("config.json", config.as_bytes()),
        ("tokenizer.json", tokenizer.as_bytes()),
        ("model.safetensors", &weights),
    ];
    files.extend(more.iter().map(|(name, text)| (*name, text.as_bytes())));
    project.archive("tiny.zip", &files);
}

/// Its shape, for texts of so many tokens.
fn config(positions: usize) -> String {
    json!({
        "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": TOKENS, "max_position_embeddings": positions,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "eos_token_id": 256, "hidden_act": "silu",
    })
    .to_string()
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

/// A project with the model, some words to learn, and an adapter; `train` and `method` go into that.
fn project(method: &str, train: &str) -> Project {
    let project = Project::new(&format!(
        r#"
model "m" {{ source path="tiny.zip" {{ weights "model.safetensors"; config "config.json"; tokenizer "tokenizer.json"; }}; architecture "llama"; }}
dataset "d" {{
    files "own" {{ glob "words.jsonl"; }}
    records "own" from="own" file="words.jsonl" {{ column "prompt" value="{{p}}"; column "completion" value="{{c}}"; }}
    split train=0.8 validation=0.2 test=0.0
}}
adapter "a" {{
    base "m"
    method {method}
    target-modules "q_proj" "v_proj"
    train "d" {{ loss "next-token"; batch 4; learning-rate 1e-2; warmup 2; evaluate-every 2; {train}; }}
}}
"#
    ));
    tiny(&project);
    let lines: Vec<String> =
        (0..20).map(|i| json!({"p": format!("{i} and {i} are "), "c": (2 * i).to_string()}).to_string()).collect();
    project.write("words.jsonl", &lines.join("\n"));
    project
}

/// What a training made: an adapter's weights, or a model's.
fn weights(project: &Project) -> Vec<u8> {
    let adapter = project.path("out/a/adapter_model.safetensors");
    let path = if adapter.exists() { adapter } else { project.path("out/a/model.safetensors") };
    std::fs::read(path).expect("there")
}

#[test]
fn more_steps_train_only_what_is_new() {
    let first = project(r#""lora" rank=2"#, "steps 4; checkpoint-every 4");
    let ran = first.builds(&["a"]);
    assert!(ran.contains(&"a:steps-4".to_owned()), "{ran:?}");
    first.edit("effai.kdl", "steps 4", "steps 10");
    assert_eq!(first.builds(&["a"]), ["a:steps-10:steps-8", "a:steps-10", "a"], "the first four are there");
    let again = project(r#""lora" rank=2"#, "steps 10; checkpoint-every 4");
    again.builds(&["a"]);
    assert_eq!(weights(&again), weights(&first));
}

#[test]
fn a_schedule_that_knows_its_end_is_another_training() {
    let project = project(r#""lora" rank=2"#, "steps 4; checkpoint-every 2; schedule \"cosine\"");
    project.builds(&["a"]);
    project.edit("effai.kdl", "steps 4", "steps 6");
    let ran = project.builds(&["a"]);
    assert_eq!(ran, ["a:steps-6:steps-4:steps-2", "a:steps-6:steps-4", "a:steps-6", "a"]);
}

#[test]
fn a_batch_cut_in_parts_learns_the_same() {
    let curve = |train: &str| -> Vec<f64> {
        let project = project(r#""rslora" rank=2 dropout=0.0"#, train);
        project.builds(&["a"]);
        let curves: Value = serde_json::from_str(&project.read("out/a/training.json")).expect("JSON");
        curves["train"].as_array().expect("steps").iter().map(|p| p[1].as_f64().expect("a loss")).collect()
    };
    let (whole, cut) = (curve("steps 6"), curve("steps 6; micro-batch 1"));
    for (whole, cut) in whole.iter().zip(&cut) {
        assert!((whole - cut).abs() < 1e-5, "records of unequal length: {whole} {cut}");
    }
    assert!(whole[5] < whole[0], "it learns: {whole:?}");
}

#[test]
fn what_does_not_fit_is_one_error() {
    let fails = |method: &str, from: &str, to: &str| -> String {
        let project = project(method, "steps 2");
        project.edit("effai.kdl", from, to);
        let run = project.effai(&["build", "a"]);
        assert_ne!(run.code, 0);
        assert!(!project.path("out/a").exists());
        run.stderr
    };
    let said = fails(r#""lora" rank=12"#, "", "");
    assert!(
        said.contains("the rank 12 is larger than `model.layers.0.self_attn.v_proj`, a matrix of 8 x 16"),
        "{said}"
    );
    let said = fails(r#""lora" rank=2"#, "\"v_proj\"", "\"w_proj\"");
    assert!(said.contains("`target-modules` \"w_proj\" matches no matrix of the base"), "{said}");
    assert!(said.contains("there are: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"), "{said}");
    let said = fails(r#""lora" rank=2"#, "train=0.8", "train=0.0");
    assert!(said.contains("the dataset has no split `train`"), "{said}");
    let said = fails(r#""lora" rank=2"#, "steps 2", "epochs 2");
    assert!(said.contains("`epochs` means nothing to the loss `next-token`"), "{said}");
    assert!(said.contains("needs `steps`"), "{said}");
}

#[test]
fn perplexity_falls_where_a_model_learns() {
    let project = project(r#""lora" rank=4"#, "steps 40");
    let two = "perplexity \"p\" { of \"m\"; on \"d\"; split \"train\"; }\nperplexity \"q\" { of \"a\"; on \"d\"; split \"train\"; }\n";
    project.write("effai.kdl", &format!("{}{two}", project.read("effai.kdl")));
    project.builds(&[]);
    let of = |label: &str| -> Value {
        serde_json::from_str(&project.read(&format!("out/{label}/losses.json"))).expect("JSON")
    };
    let (before, after) = (of("p"), of("q"));
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!(number(&after["perplexity"]) < 0.8 * number(&before["perplexity"]), "{before} {after}");
    for found in [before, after] {
        let (low, high) = (number(&found["interval"][0]), number(&found["interval"][1]));
        assert!(low < number(&found["perplexity"]) && number(&found["perplexity"]) < high, "{found}");
    }
}

#[test]
fn a_model_is_asked() {
    let project = project(r#""lora" rank=2"#, "steps 2");
    let ask = |args: &[&str]| project.effai(&[&["run", "a", "3 and 3 are "], args].concat());
    let greedy = ask(&["--max-tokens", "5"]);
    assert_eq!(greedy.code, 0, "{}", greedy.stderr);
    assert_eq!(ask(&["--max-tokens", "5"]).stdout, greedy.stdout);
    let drawn = |seed: &str| ask(&["--max-tokens", "5", "--temperature", "5", "--seed", seed, "--json"]).stdout;
    let object: Value = serde_json::from_str(&drawn("1")).expect("an object");
    assert_eq!(object["tokens"]["prompt"], 12);
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}
