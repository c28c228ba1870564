//! Ways to train: each goes on after a kill with the same bytes, and each is what other tools read.

use effai::backend::arrays::Arrays;
use effai::format::tensors;
use effai::model::quantized::{self, Keep};
use serde_json::Value;

use super::{project, weights};
use crate::support::Project;

/// Kills a training of six steps, kept by twos, here and there: what it ends in is what the one that was not killed gave.
fn killed_it_goes_on(method: &str, train: &str, stride: usize) {
    let begun = || {
        let project = project(method, &format!("steps 6; checkpoint-every 2{train}"));
        if train.contains("learning-rate") {
            project.edit("effai.kdl", "learning-rate 1e-2; ", "");
        }
        project
    };
    let clean = begun();
    let all = clean.builds(&["a"]);
    let mut kept = 0;
    for step in (20..).step_by(stride) {
        let project = begun();
        let killed = project.effai_told(&["build", "a"], &[("EFFAI_CRASH_AT", &step.to_string())]);
        if killed.code == 0 {
            assert!(step > 150, "only {step} steps");
            break;
        }
        let ran = project.builds(&["a"]);
        kept += usize::from(ran.len() < all.len());
        assert_eq!(weights(&project), weights(&clean), "killed at step {step}");
    }
    assert!(kept > 0, "what was done is not done again");
}

#[test]
fn a_killed_training_goes_on_and_ends_in_the_same_bytes() {
    killed_it_goes_on(r#""lora" rank=2"#, "", 61);
    killed_it_goes_on(r#""dora" rank=2"#, "", 211);
    killed_it_goes_on(r#""full""#, "", 211);
    killed_it_goes_on(r#""lora" rank=2"#, "; optimizer \"sgd\" momentum=0.8", 211);
    killed_it_goes_on(r#""lora" rank=2"#, "; pack #true", 211);
    killed_it_goes_on(r#""lora" rank=2"#, WILD, 211);
}

#[test]
fn dora_is_written_for_peft_and_mlx_lm() {
    let project = project(r#""dora" rank=2 dropout=0.1"#, "steps 4");
    project.builds(&["a"]);
    let config: Value = serde_json::from_str(&project.read("out/a/adapter_config.json")).expect("JSON");
    assert_eq!(config["use_dora"], true);
    let own = tensors::read(&project.path("out/a/adapter_model.safetensors")).expect("read");
    let config: Value = serde_json::from_str(&project.read("out/a/mlx/adapter_config.json")).expect("JSON");
    assert_eq!(config["fine_tune_type"], "dora");
    let mlx = tensors::read(&project.path("out/a/mlx/adapters.safetensors")).expect("read");
    let module = "model.layers.1.self_attn.v_proj";
    let magnitudes = own[&format!("base_model.model.{module}.lora_magnitude_vector")].floats();
    assert_eq!(magnitudes.len(), 8);
    assert_eq!(magnitudes, mlx[&format!("{module}.m")].floats());
}

#[test]
fn one_thread_and_three_give_the_same_bytes() {
    for method in [r#""lora" rank=2"#, r#""dora" rank=2"#, r#""full""#] {
        let bytes = |jobs: &str| {
            let project = project(method, "steps 3");
            assert_eq!(project.effai(&["build", "a", "--jobs", jobs]).code, 0);
            weights(&project)
        };
        assert_eq!(bytes("1"), bytes("3"), "{method}");
    }
}

/// The losses of a training by step.
fn curve(project: &Project) -> Vec<f64> {
    let curves: Value = serde_json::from_str(&project.read("out/a/training.json")).expect("JSON");
    curves["train"].as_array().expect("steps").iter().map(|p| p[1].as_f64().expect("a loss")).collect()
}

/// Steps so long that the first tries end in nothing.
const WILD: &str = "; optimizer \"sgd\"; learning-rate 1e5; on-divergence retries=8 factor=0.1";

#[test]
fn a_training_that_diverges_goes_on_with_a_smaller_rate() {
    let begun = |train: &str| {
        let project = project(r#""lora" rank=2"#, &format!("steps 30; checkpoint-every 15{train}"));
        project.edit("effai.kdl", "learning-rate 1e-2; ", "");
        (project.effai(&["build", "a"]), project)
    };
    let (run, project) = begun(WILD);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("the training diverges at step "), "{}", run.stderr);
    assert!(run.stderr.contains(": again from step 0, with 0.1 of the learning rate"), "{}", run.stderr);
    let curves: Value = serde_json::from_str(&project.read("out/a/training.json")).expect("JSON");
    let retries = curves["retries"].as_array().expect("on record");
    assert!(retries.len() > 1 && retries[0]["factor"] == 0.1 && retries[0]["from"] == 0, "{retries:?}");
    let losses = curve(&project);
    assert!(losses.len() == 30 && losses[29] < losses[0], "{losses:?}");

    let (run, project) = begun(&WILD.replace("retries=8", "retries=1"));
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains(", also after a retry (learning rate 1.000e4)"), "{}", run.stderr);
    assert!(run.stderr.contains("try a lower `learning-rate`"), "{}", run.stderr);
    assert!(!project.path("out/a").exists());
}

#[test]
fn packed_records_have_the_losses_of_padded_ones() {
    let of = |train: &str| {
        let project = project(r#""lora" rank=2 dropout=0.0"#, train);
        project.builds(&["a"]);
        curve(&project)
    };
    let padded = of("steps 6");
    for train in ["steps 6; pack #true", "steps 6; pack #true; micro-batch 3"] {
        let packed = of(train);
        assert!(padded.iter().zip(&packed).all(|(a, b)| (a - b).abs() < 1e-5), "{padded:?} {packed:?}");
    }
}

#[test]
fn a_loss_that_stands_still_is_told() {
    let project = project(r#""lora" rank=2 dropout=0.0"#, "steps 200");
    project.edit("effai.kdl", "learning-rate 1e-2", "learning-rate 1e-12");
    let run = project.effai(&["build", "a"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(run.stderr.matches("the loss stands still: ").count(), 1, "{}", run.stderr);
}

#[test]
fn updates_of_a_quantized_base_are_those_of_the_same_base_expanded() {
    of_expanded(r#""lora" rank=2"#, "steps 4", "candle");
    if cfg!(feature = "mlx") {
        of_expanded(r#""lora" rank=2"#, "steps 4; precision \"bf16\"", "mlx");
        of_expanded(r#""dora" rank=2"#, "steps 4; precision \"bf16\"", "mlx");
    }
}

fn of_expanded(method: &str, train: &str, backend: &str) {
    let project = project(method, train);
    let recipe = project.read("effai.kdl").replace("\"q_proj\" \"v_proj\"", "\"q_proj\" \"down_proj\"");
    let (models, adapter) = recipe.split_at(recipe.find("adapter").expect("there"));
    let of = |label: &str, base: &str| {
        adapter
            .replace("adapter \"a\"", &format!("adapter \"{label}\""))
            .replace("base \"m\"", &format!("base \"{base}\""))
    };
    let packed = "quantized \"q\" { from \"m\"; method \"rtn\" bits=4 group=32; }\n";
    let unpacked = models.lines().find(|line| line.starts_with("model")).expect("there");
    let unpacked = unpacked.replace("\"m\"", "\"n\"").replace("tiny.zip", "unpacked.zip");
    project.write("effai.kdl", &[models, packed, &unpacked, "\n", &of("a", "q"), &of("b", "n")].concat());
    project.builds(&["q"]);
    let config = project.read("out/q/config.json");
    let mut arrays = tensors::read(&project.path("out/q/model.safetensors")).expect("read");
    assert!(arrays.contains_key("model.layers.0.mlp.down_proj.scales"));
    quantized::unpack(&mut arrays, &config, Keep::Nothing).expect("unpacks");
    let file = project.path("unpacked");
    tensors::write(&file, &arrays, &[("format", "pt")]).expect("written");
    let (config, tokenizer) = (config.replace("quantization", "other"), project.read("out/q/tokenizer.json"));
    project.archive(
        "unpacked.zip",
        &[
            ("config.json", config.as_bytes()),
            ("tokenizer.json", tokenizer.as_bytes()),
            ("model.safetensors", &project.read_bytes("unpacked")),
        ],
    );
    project.builds(&["a", "b", "--backend", backend]);
    let own = |label: &str| project.read_bytes(&format!("out/{label}/adapter_model.safetensors"));
    assert_eq!(own("a"), own("b"), "{method} {train}");
}

#[test]
fn full_makes_a_model_that_stands_alone() {
    let project = project(r#""full""#, "steps 12");
    let all = "    target-modules \"q_proj\" \"v_proj\"\n";
    let asked = "perplexity \"p\" { of \"a\"; on \"d\"; split \"train\"; }\n";
    project.write("effai.kdl", &format!("{}{asked}", project.read("effai.kdl").replace(all, "")));
    project.builds(&["a", "p"]);
    let losses = curve(&project);
    assert!(losses[11] < 0.8 * losses[0], "{losses:?}");
    let found: Value = serde_json::from_str(&project.read("out/p/losses.json")).expect("JSON");
    assert!(found["loss"].as_f64().expect("a loss") < 0.8 * losses[0], "{found}");
    let config: Value = serde_json::from_str(&project.read("out/a/config.json")).expect("JSON");
    assert_eq!(config["model_type"], "llama");
    assert!(project.path("out/a/tokenizer.json").exists() && !project.path("out/a/adapter_config.json").exists());
    let run = project.effai(&["run", "a", "3 and 3 are ", "--max-tokens", "3"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // Every weight has moved: also the tied matrix of the vocabulary, and the norms.
    let (own, base) = (whole(&project, "a"), whole(&project, "m"));
    assert_eq!(own.len(), base.len());
    assert!(own.iter().all(|(name, array)| array.floats() != base[name].floats()));
}

fn whole(project: &Project, label: &str) -> Arrays {
    project.builds(&[label]);
    tensors::read(&project.path(&format!("out/{label}/model.safetensors"))).expect("read")
}

#[test]
fn full_trains_the_modules_that_are_named() {
    let project = project(r#""full""#, "steps 2");
    let (own, base) = (whole(&project, "a"), whole(&project, "m"));
    for (name, array) in &own {
        let named = name.contains("q_proj") || name.contains("v_proj");
        assert_eq!(array.floats() != base[name].floats(), named, "{name}");
    }
}

#[test]
fn what_means_nothing_to_a_method_is_said() {
    let fails = |method: &str, from: &str, to: &str| -> String {
        let project = project(method, "steps 2");
        project.edit("effai.kdl", from, to);
        let run = project.effai(&["build", "a"]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        run.stderr
    };
    let said = fails(r#""full" rank=4 dropout=0.0"#, "", "");
    assert!(said.contains("`rank` means nothing to the method `full`"), "{said}");
    assert!(said.contains("`dropout` means nothing to the method `full`"), "{said}");
    let said = fails(r#""lora" rank=2"#, "steps 2", "steps 2; optimizer \"adamw\" momentum=0.5");
    assert!(said.contains("`momentum` means nothing to the optimizer `adamw`"), "{said}");
    let said = fails(r#""lora" rank=2"#, "steps 2", "on-divergence factor=1.5; steps 2");
    assert!(said.contains("`factor` is a number above 0, up to 0.99, not the number 1.5"), "{said}");
    let said = fails(r#""dora""#, "target-modules \"q_proj\" \"v_proj\"", "");
    assert!(said.contains("the method `dora` needs `target-modules`"), "{said}");
}
