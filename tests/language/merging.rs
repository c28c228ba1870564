//! Adapters merged into their bases.

use std::collections::BTreeMap;

use effai::backend::arrays::{Array, Arrays};
use effai::format::tensors;
use effai::model::quantized::{self, Keep};
use serde_json::Value;

use crate::support::Project;
use crate::support::tiny::project;

/// A project with these targets besides, and adapters of these modules.
fn with(method: &str, modules: &str, more: &str) -> Project {
    let project = project(method, "steps 6");
    project.edit("effai.kdl", "\"q_proj\" \"v_proj\"", modules);
    project.write("effai.kdl", &format!("{}{more}", project.read("effai.kdl")));
    project
}

fn perplexity(of: &str) -> String {
    format!("perplexity \"{of}-says\" {{ of \"{of}\"; on \"d\"; split \"train\"; }}\n")
}

/// The mean loss of each record.
fn losses(project: &Project, of: &str) -> Vec<f64> {
    let found: Value = serde_json::from_str(&project.read(&format!("out/{of}-says/losses.json"))).expect("JSON");
    let losses = found["losses"].as_array().expect("records").iter();
    losses.map(|record| record[0].as_f64().expect("a loss")).collect()
}

fn apart(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn config(project: &Project, label: &str) -> Value {
    serde_json::from_str(&project.read(&format!("out/{label}/config.json"))).expect("JSON")
}

fn arrays(project: &Project, label: &str) -> Arrays {
    tensors::read(&project.path(&format!("out/{label}/model.safetensors"))).expect("read")
}

/// Builds a target that is not there yet; the last of each metric, and what was said.
fn metrics(project: &Project, label: &str) -> (BTreeMap<String, f64>, String) {
    let run = project.effai(&["build", label, "--json"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let events = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let metrics = events.filter(|event| event["what"]["event"] == "metric").map(|event| {
        let what = &event["what"];
        (what["name"].as_str().expect("a name").to_owned(), what["value"].as_f64().expect("a number"))
    });
    (metrics.collect(), run.stdout)
}

#[test]
fn a_merged_model_says_what_base_and_adapter_say() {
    let more = format!("merge \"x\" {{ base \"m\"; adapter \"a\"; }}\n{}{}", perplexity("a"), perplexity("x"));
    for method in [r#""lora" rank=2"#, r#""rslora" rank=4 alpha=6"#, r#""dora" rank=2"#] {
        let project = with(method, r#""q_proj" "v_proj" "down_proj""#, &format!("{more}{}", perplexity("m")));
        project.builds(&[]);
        let (base, adapted, merged) = (losses(&project, "m"), losses(&project, "a"), losses(&project, "x"));
        assert!(apart(&adapted, &merged) < 1e-5, "{method}: {adapted:?} {merged:?}");
        assert!(apart(&adapted, &base) > 1e-2, "{method}: it learnt something");
        let ask = |label: &str| project.effai(&["run", label, "3 and 3 are ", "--max-tokens", "4"]).stdout;
        assert_eq!(ask("x"), ask("a"), "{method}");
        assert_eq!(config(&project, "x"), config(&project, "m"));
        assert!(project.path("out/x/tokenizer.json").exists() && !project.path("out/x/adapter_config.json").exists());
        assert!(project.read("out/x/README.md").contains("`m` with the adapter `a` merged: 6 of its tensors"));
        let (own, base) = (arrays(&project, "x"), arrays(&project, "m"));
        for (name, array) in &own {
            let adapted = ["q_proj", "v_proj", "down_proj"].iter().any(|module| name.contains(module));
            assert_eq!(array.floats() != base[name].floats(), adapted, "{name}");
        }
        assert_eq!(own.len(), base.len());
    }
}

#[test]
fn modules_that_were_trained_whole_stand_in_their_own_right() {
    let source = r#"source path="b.zip" { weights "adapter_model.safetensors"; config "adapter_config.json"; }"#;
    let more = format!(
        "adapter \"b\" {{ base \"m\"; {source}; }}\nmerge \"x\" {{ base \"m\"; adapter \"b\"; }}\n{}{}",
        perplexity("b"),
        perplexity("x")
    );
    let project = with(r#""lora" rank=2"#, r#""q_proj""#, &more);
    project.builds(&["a"]);
    let mut weights = tensors::read(&project.path("out/a/adapter_model.safetensors")).expect("read");
    let whole = Array::f32(&[16], (0..16).map(|i| 1.0 + i as f32 / 16.0).collect());
    let pack = |weights: &Arrays| {
        let file = project.path("b");
        tensors::write(&file, weights, &[("format", "pt")]).expect("written");
        let mut config: Value = serde_json::from_str(&project.read("out/a/adapter_config.json")).expect("JSON");
        config["modules_to_save"] = serde_json::json!(["norm"]);
        let config = config.to_string();
        project.archive(
            "b.zip",
            &[("adapter_model.safetensors", &project.read_bytes("b")), ("adapter_config.json", config.as_bytes())],
        );
    };
    weights.insert("base_model.model.model.norm.weight".into(), whole.clone());
    pack(&weights);
    project.builds(&["x-says", "b-says", "x"]);
    assert_eq!(arrays(&project, "x")["model.norm.weight"], whole);
    assert!(apart(&losses(&project, "x"), &losses(&project, "b")) < 1e-5);

    weights.insert("base_model.model.model.norm.weight".into(), Array::f32(&[8], vec![1.0; 8]));
    pack(&weights);
    let run = project.effai(&["build", "x"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("the adapter's `model.norm.weight` is [8], and the base's is [16]"), "{}", run.stderr);
}

#[test]
fn what_changed_of_a_quantized_base_is_rounded_as_it_was_or_not_at_all() {
    let more = "quantized \"q\" { from \"m\"; method \"rtn\" bits=4 group=32; }
merge \"x\" { base \"q\"; adapter \"a\"; dequantize #true; }
merge \"y\" { base \"q\"; adapter \"a\"; }\n";
    let more = format!("{more}{}{}{}", perplexity("a"), perplexity("x"), perplexity("y"));
    // Of the tiny model's matrices only these are wide enough to be rounded; one of them is adapted.
    let project = with(r#""lora" rank=2"#, r#""model.layers.1.mlp.down_proj" "q_proj""#, &more);
    project.edit("effai.kdl", "base \"m\"", "base \"q\"");
    // So little that rounding takes most of it.
    project.edit("effai.kdl", "learning-rate 1e-2", "learning-rate 4e-3");
    project.builds(&["q", "a"]);
    let (told, said) = metrics(&project, "y");
    project.builds(&["x", "a-says", "x-says", "y-says"]);
    assert!(apart(&losses(&project, "a"), &losses(&project, "x")) < 1e-5);
    assert!(config(&project, "x")["quantization"].is_null() && config(&project, "x")["quantization_config"].is_null());
    assert_eq!(config(&project, "y"), config(&project, "q"));

    let (base, rounded) = (arrays(&project, "q"), arrays(&project, "y"));
    let shapes = |arrays: &Arrays| arrays.iter().map(|(n, a)| (n.clone(), a.shape.clone())).collect::<Vec<_>>();
    assert_eq!(shapes(&base), shapes(&rounded));
    for part in ["weight", "scales", "biases"] {
        let [same, other] = ["0", "1"].map(|layer| format!("model.layers.{layer}.mlp.down_proj.{part}"));
        assert_eq!(rounded[&same], base[&same], "what no adapter touches stays as it lies");
        assert_ne!(rounded[&other], base[&other]);
    }
    let unpacked = |label: &str| {
        let mut arrays = arrays(&project, label);
        quantized::unpack(&mut arrays, &config(&project, label).to_string(), Keep::Nothing).expect("unpacks");
        arrays
    };
    let (base, floats, rounded) = (unpacked("q"), unpacked("x"), unpacked("y"));
    let module = "model.layers.1.mlp.down_proj";
    let norm = |a: &Arrays, b: Option<&Arrays>| -> f64 {
        let name = format!("{module}.weight");
        let other = b.map(|b| b[&name].floats());
        let values = a[&name].floats().iter().enumerate();
        values.map(|(i, v)| f64::from(v - other.map_or(0.0, |o| o[i])).powi(2)).sum::<f64>().sqrt()
    };
    let (error, update) = (norm(&rounded, Some(&floats)), norm(&floats, Some(&base)));
    for (name, value) in [("error", error / norm(&floats, None)), ("lost", error / update)] {
        for name in [name.to_owned(), format!("{name}.{module}")] {
            assert!((told[&name] / value - 1.0).abs() < 1e-3, "{name}: {} {value}", told[&name]);
        }
    }
    assert_eq!(told.keys().filter(|name| name.starts_with("error.")).count(), 1);
    assert!(floats["model.layers.0.self_attn.q_proj.weight"] == rounded["model.layers.0.self_attn.q_proj.weight"]);
    let warned = format!("rounding the merged weights to 4 bits moves `{module}` by ");
    assert!(said.contains(&warned) && said.contains("`dequantize #true` writes floats"), "{} {said}", error / update);
}

#[test]
fn what_cannot_be_merged_is_one_error() {
    let fails = |project: &Project, label: &str| -> String {
        let run = project.effai(&["build", label]);
        assert_ne!(run.code, 0);
        assert!(!project.path(&format!("out/{label}")).exists());
        run.stderr
    };
    let more = "quantized \"q\" { from \"m\"; method \"rtn\" bits=8 group=32; }
merge \"x\" { base \"q\"; adapter \"a\"; }
merge \"y\" { base \"q\"; adapter \"a\"; other-base #true; }
merge \"z\" { base \"a\"; adapter \"a\"; }
merge \"v\" { base \"m\"; adapter \"m\"; }\n";
    let project = with(r#""lora" rank=2"#, r#""q_proj""#, more);
    let said = fails(&project, "x");
    assert!(said.contains("`a` is an adapter of `m`, not of `q`"), "{said}");
    assert!(said.contains("write base \"m\", or `other-base #true`"), "{said}");
    project.builds(&["y"]);
    let said = fails(&project, "z");
    assert!(said.contains("`a` is an adapter, not a model"), "{said}");
    let said = fails(&project, "v");
    assert!(said.contains("`m` is a model that stands alone, not an adapter"), "{said}");
}
