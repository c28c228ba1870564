//! Exports of tiny models, by the program itself. What the files compute is held against other programs by
//! tests/reference/export.

use serde_json::Value;

use crate::support::Project;
use crate::support::tiny::Tiny;

/// A sentence encoder `m`, a language model `l`, and these exports.
pub(crate) fn project(exports: &str) -> Project {
    let project = Project::new(&format!(
        r#"
model "m" {{
    source path="m.zip" license="MIT" {{ weights "model.safetensors"; config "config.json"; tokenizer "tokenizer.json"; }}
    architecture "bert"
}}
model "l" {{
    source path="l.zip" {{ weights "model.safetensors"; config "config.json"; tokenizer "tokenizer.json"; }}
    architecture "llama"
}}
{exports}
"#
    ));
    Tiny::bert().pack(&project, "m.zip", &[]);
    Tiny::llama().pack(&project, "l.zip", &[]);
    project
}

#[test]
fn a_model_becomes_a_file_that_is_held_against_it() {
    let project = project(
        r#"
export "x/m" { from "m"; format "onnx"; text "a red heart"; }
export "x/old" { from "m"; format "onnx" opset=13; }
export "x/half" { from "m"; format "onnx" precision="f16"; verify rounds=2 seed=3; }
export "x/l" { from "l"; format "onnx"; text "one"; text "two and more"; }
export "x/alone" { from "m"; format "onnx"; verify #false; }
"#,
    );
    project.builds(&[]);
    let report = |label: &str| -> Value {
        serde_json::from_str(&project.read(&format!("out/{label}/verify.json"))).expect("JSON")
    };
    for (label, rounds, most) in [("x/m", 7, 1e-5), ("x/old", 6, 1e-5), ("x/half", 2, 2e-3), ("x/l", 8, 1e-5)] {
        let report = report(label);
        assert_eq!(report["rounds"], rounds, "{label}");
        assert!(report["max_relative_error"].as_f64().is_some_and(|error| error < most), "{label}: {report}");
        assert_eq!(report["top1_agreement"], 1.0, "{label}: {report}");
        for file in ["config.json", "tokenizer.json", "README.md"] {
            assert!(project.path(&format!("out/{label}/{file}")).exists(), "{label} {file}");
        }
    }
    assert!(report("x/half")["program"].as_str().is_some_and(|program| program.ends_with("in 32")));
    assert!(!project.path("out/x/alone/verify.json").exists());
    let size = |label: &str| project.read_bytes(&format!("out/{label}/model.onnx")).len();
    assert!(size("x/half") < size("x/m"));
    let file = project.read_bytes("out/x/m/model.onnx");
    for text in ["effai.source", "license", "mit", "LayerNormalization", "sentence_embedding"] {
        assert!(file.windows(text.len()).any(|bytes| bytes == text.as_bytes()), "{text}");
    }
    let again = project.effai(&["build", "--check", "x/m", "x/l"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
}

#[test]
fn a_model_becomes_a_package_that_is_held_against_it() {
    let project = project(
        r#"
export "x/m" { from "m"; format "coreml"; text "a red heart"; }
export "x/half" { from "m"; format "coreml" precision="f16" target="macOS14"; verify rounds=2; }
export "x/palette" { from "m"; format "coreml" precision="palette6-weights"; verify rounds=2; }
export "x/l" { from "l"; format "coreml"; text "one"; text "two and more"; }
"#,
    );
    project.builds(&[]);
    for (label, most) in [("x/m", 1e-5), ("x/half", 2e-3), ("x/palette", 0.3), ("x/l", 1e-5)] {
        let report: Value = serde_json::from_str(&project.read(&format!("out/{label}/verify.json"))).expect("JSON");
        assert!(report["max_relative_error"].as_f64().is_some_and(|error| error < most), "{label}: {report}");
        assert!(report["program"].as_str().is_some_and(|program| program.starts_with("effai's evaluator")), "{report}");
        let manifest = project.read(&format!("out/{label}/model.mlpackage/Manifest.json"));
        let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
        let root = manifest["rootModelIdentifier"].as_str().expect("an identifier");
        assert_eq!(manifest["itemInfoEntries"][root]["path"], "com.apple.CoreML/model.mlmodel");
    }
    let card = project.read("out/x/l/README.md");
    assert!(card.contains("as Core ML for iOS 15 and macOS 12 and later"), "{card}");
    assert!(card.contains("`past_key_values_LAYER_key`"), "{card}");
    let again = project.effai(&["build", "--check", "x/m", "x/l"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
}

#[test]
fn what_is_not_meant_is_one_error() {
    let fails = |export: &str, code: i32| -> String {
        let project = project(&format!("export \"x\" {{ {export}; }}"));
        let run = project.effai(&["build", "x"]);
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(!project.path("out/x").exists());
        run.stderr
    };
    let said = fails("from \"m\"; part \"picture\"; format \"onnx\"", 2);
    assert!(said.contains("`m` has no part `picture`, only `text`"), "{said}");
    let said = fails("from \"m\"; format \"onnx\" opset=12", 2);
    assert!(said.contains("opset"), "{said}");
    let said = fails("from \"m\"; format \"coreml\" precision=\"int4-weights\" target=\"iOS17\"", 2);
    assert!(said.contains("iOS 17 and macOS 14 have no operators for `int4-weights`"), "{said}");
    let said = fails("from \"m\"; format \"onnx\" precision=\"palette4-weights\"", 2);
    assert!(said.contains("`onnx` is not written in `palette4-weights`"), "{said}");
    let said = fails("from \"m\"; format \"onnx\"; verify #false tolerance=0.1", 2);
    assert!(said.contains("`tolerance` means nothing where the file is not held against the model"), "{said}");
    let said = fails("from \"m\"; format \"onnx\"; verify tolerance=1e-12", 1);
    assert!(said.contains("the exported file and its model differ by"), "{said}");
    assert!(said.contains("a wider `tolerance` or `cosine` allows it"), "{said}");
}
