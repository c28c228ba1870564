//! Language models, on one so small that a step takes a millisecond.

mod backends;
mod checkpointing;
mod imported;
mod merging;
mod methods;
mod precision;
mod quantized;
mod reports;
mod suite;

use serde_json::Value;

use crate::support::Project;
use crate::support::tiny::{Tiny, project};

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
fn a_thousand_steps_become_two_thousand() {
    let begun = |steps: &str| {
        let project = project(r#""lora" rank=2"#, &format!("steps {steps}; schedule \"constant\""));
        // As little to compute as there can be: the steps are what counts here.
        let mut least = Tiny::llama().config;
        for (name, value) in [("hidden_size", 8), ("intermediate_size", 8), ("num_hidden_layers", 1)] {
            least[name] = value.into();
        }
        Tiny::of(least).pack(&project, "tiny.zip", &[]);
        project.edit("effai.kdl", "batch 4", "batch 1");
        project.edit("effai.kdl", "evaluate-every 2", "evaluate-every 500");
        project
    };
    // Builds it and says which steps were trained.
    let trained = |project: &Project| -> Vec<u64> {
        let run = project.effai(&["build", "a", "--json"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        let events = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        events
            .filter(|e| e["what"]["name"] == "train.loss")
            .map(|e| e["what"]["step"].as_u64().expect("a step"))
            .collect()
    };
    let project = begun("1000");
    assert_eq!(trained(&project), Vec::from_iter(1..=1000));
    project.edit("effai.kdl", "steps 1000", "steps 2000");
    assert_eq!(trained(&project), Vec::from_iter(1001..=2000), "the first thousand are there");
    let whole = begun("2000");
    assert_eq!(trained(&whole), Vec::from_iter(1..=2000));
    assert_eq!(weights(&project), weights(&whole));
    assert_eq!(project.read("out/a/training.json"), whole.read("out/a/training.json"));
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
    assert!(said.contains("the dataset d has no split `train`"), "{said}");
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
