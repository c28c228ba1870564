//! Trainings in bf16, which MLX has and candle has not.

use super::weights;
use crate::support::tiny::project;

#[test]
fn candle_refuses_it_and_nothing_takes_its_place() {
    let project = project(r#""lora" rank=2"#, "steps 2; precision \"bf16\"");
    let run = project.effai(&["build", "a", "--backend", "candle"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("`precision \"bf16\"` needs MLX, and candle was to compute"), "{}", run.stderr);
    assert!(run.stderr.contains("take `--backend mlx`, or leave `precision` out"), "{}", run.stderr);
    assert!(!project.path("out/a").exists());
}

#[test]
fn a_recipe_that_contradicts_itself_is_refused_at_its_place() {
    let refused = |from: &str, to: &str, said: &str| {
        let project = project(r#""lora" rank=2"#, "steps 2; precision \"bf16\"");
        project.edit("effai.kdl", from, to);
        let run = project.effai(&["build", "a"]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(run.stderr.contains(said) && run.stderr.contains("effai.kdl:"), "{}", run.stderr);
    };
    let both = "`precision \"bf16\"` needs MLX, and `backend` names candle";
    refused("base \"m\"", "base \"m\"; backend \"candle\"", both);
    refused("\"bf16\"", "\"f16\"", "f16");
    refused("steps 2; ", "", "needs `steps`");
    refused("next-token", "info-nce", "`precision` means nothing to the loss `info-nce`");
}

#[test]
fn saying_what_is_so_anyway_trains_nothing_again() {
    let project = project(r#""lora" rank=2"#, "steps 2");
    project.builds(&["a"]);
    let before = weights(&project);
    project.edit("effai.kdl", "steps 2", "steps 2; precision \"f32\"");
    assert_eq!(project.builds(&["a"]), ["a"]);
    assert_eq!(weights(&project), before);
}

#[cfg(feature = "mlx")]
mod on_mlx {
    use effai::format::tensors;
    use serde_json::Value;

    use super::*;
    use crate::support::Project;

    const BF16: &str = "; precision \"bf16\"";

    /// A training of 20 steps.
    fn begun(method: &str, more: &str) -> Project {
        let project = project(method, &format!("steps 20; checkpoint-every 4{more}"));
        project.edit("effai.kdl", "evaluate-every 2", "evaluate-every 5");
        if method.contains("full") {
            project.edit("effai.kdl", "    target-modules \"q_proj\" \"v_proj\"\n", "");
            project.edit("effai.kdl", "learning-rate 1e-2", "learning-rate 1e-3");
        }
        project
    }

    fn builds(project: &Project) -> &Project {
        let run = project.effai(&["build", "a", "--backend", "mlx"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        project
    }

    fn curves(project: &Project) -> Value {
        serde_json::from_str(&project.read("out/a/training.json")).expect("JSON")
    }

    fn losses(curves: &Value) -> Vec<f64> {
        let points = ["train", "validation"].iter().flat_map(|name| curves[name].as_array().expect("some"));
        points.map(|p| p[1].as_f64().expect("a loss")).collect()
    }

    #[test]
    fn losses_stay_near_those_in_32_bits_and_what_is_trained_has_32() {
        for (method, more) in [
            (r#""lora" rank=2"#, ""),
            (r#""dora" rank=2 dropout=0.1"#, "; micro-batch 3"),
            (r#""full""#, ""),
            (r#""lora" rank=2"#, "; pack #true; optimizer \"sgd\""),
        ] {
            let (plain, lower) = (begun(method, more), begun(method, &format!("{more}{BF16}")));
            let (before, after) = (curves(builds(&plain)), curves(builds(&lower)));
            assert!(before.get("precision").is_none() && after["precision"] == "bf16");
            assert!(lower.read("out/a/README.md").contains(" trained on `d` in bf16, weights in 32 bits; "));
            let (before, after) = (losses(&before), losses(&after));
            assert!(before[19] < before[0] && before != after, "{method}: {before:?}");
            for (before, after) in before.iter().zip(&after) {
                assert!((before - after).abs() < 0.02, "{method}, as docs/backends.md states: {before} {after}");
            }
            let file = if method.contains("full") { "model" } else { "adapter_model" };
            let arrays = tensors::read(&lower.path(&format!("out/a/{file}.safetensors"))).expect("read");
            let coarse = |v: &f32| v.to_bits() & 0xffff == 0;
            assert!(arrays.values().all(|array| !array.floats().iter().all(coarse)), "{method}: in 32 bits");
        }
    }

    #[test]
    fn it_repeats_itself_killed_or_not() {
        for method in [r#""lora" rank=2"#, r#""full""#] {
            let (clean, again) = (begun(method, BF16), begun(method, BF16));
            assert_eq!(weights(builds(&clean)), weights(builds(&again)), "{method}");
            for step in [1, 6, 11, 16, 19] {
                let project = begun(method, BF16);
                let args = ["build", "a", "--json", "--backend", "mlx"];
                assert!(project.killed_at(&args, &format!("\"step\":{step},")));
                assert_eq!(weights(builds(&project)), weights(&clean), "{method}, killed at step {step}");
            }
        }
    }

    #[test]
    fn layers_computed_again_give_the_same_bytes() {
        for (method, more) in [(r#""dora" rank=2 dropout=0.1"#, "; pack #true"), (r#""full""#, "; micro-batch 2")] {
            let of = |more: &str| weights(builds(&begun(method, &format!("{more}{BF16}"))));
            assert_eq!(of(more), of(&format!("{more}; gradient-checkpointing #true")), "{method}");
        }
    }

    #[test]
    fn it_is_a_fact() {
        let project = begun(r#""lora" rank=2"#, "");
        let trained = losses(&curves(builds(&project)));
        project.edit("effai.kdl", "steps 20", "steps 20; precision \"bf16\"");
        let explained = project.effai(&["build", "a", "--backend", "mlx", "--explain"]);
        assert_eq!(explained.code, 0, "{}", explained.stderr);
        assert!(explained.stderr.contains("precision"), "{}", explained.stderr);
        assert_ne!(losses(&curves(&project)), trained);
        // Who computed is none: what MLX made is there for candle.
        assert_eq!(project.builds(&["a"]), [""; 0]);
    }
}
