//! Ways to train: each goes on after a kill with the same bytes, and each is what other tools read.

use effai::format::tensors;
use serde_json::Value;

use super::{project, weights};

/// Kills a training of six steps, kept by twos, here and there: what it ends in is what the one that was not killed gave.
fn killed_it_goes_on(method: &str, train: &str, stride: usize) {
    let begun = || project(method, &format!("steps 6; checkpoint-every 2{train}"));
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
    killed_it_goes_on(r#""dora" rank=2"#, "", 151);
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
    for method in [r#""lora" rank=2"#, r#""dora" rank=2"#] {
        let bytes = |jobs: &str| {
            let project = project(method, "steps 3");
            assert_eq!(project.effai(&["build", "a", "--jobs", jobs]).code, 0);
            weights(&project)
        };
        assert_eq!(bytes("1"), bytes("3"), "{method}");
    }
}
