//! Exports of tiny models, by the program itself. What the files compute is held against other programs by
//! tests/reference/export.

mod generated;

use effai::backend::arrays::Array;
use serde_json::{Value, json};

use crate::support::Project;
use crate::support::tiny::{Tiny, words};

/// A sentence encoder `m`, a language model `l`, a picture-text model `c` whose texts end with a token, and these exports.
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
model "c" {{
    source path="c.zip" license="MIT" {{ weights "model.safetensors"; config "config.json"; tokenizer "tokenizer.json"; }}
    architecture "clip"
}}
{exports}
"#
    ));
    let mut clip = Tiny::clip();
    clip.arrays.insert("logit_scale".into(), Array::f32(&[], vec![2.0]));
    let one = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}]);
    clip.tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing", "single": one, "pair": one,
        "special_tokens": {"<end>": {"id": "<end>", "ids": [256], "tokens": ["<end>"]}},
    });
    clip.pack(&project, "c.zip", &[]);
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
export "x/alone" { from "m"; format "onnx"; verify tolerance=0.1; profile "off" { verify #false; }; }
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
    assert_eq!(report("x/alone")["tolerance"], 0.1);
    // A profile turns the check off; what it allows elsewhere waits.
    project.builds(&["--profile", "off", "x/alone"]);
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
fn tensorflow_lite_files_of_any_size_and_of_one() {
    let project = project(
        r#"
export "x/m" { from "m"; format "tflite"; text "a red heart"; }
export "x/half" { from "m"; format "tflite" precision="f16-weights"; verify rounds=2; }
export "x/bytes" { from "m"; format "tflite" precision="int8" weight-threshold=255; verify rounds=2; }
export "x/one" { from "m"; format "tflite"; shape batch=1 sequence=8; }
export "x/onnx" { from "m"; format "onnx"; shape batch=2; text "one"; text "two and more"; text "three"; }
export "x/step" { from "l"; format "tflite"; shape batch=1 sequence=1 past=9; }
export "x/l" { from "l"; format "tflite"; text "one"; }
"#,
    );
    project.builds(&[]);
    let all = [("x/m", 7), ("x/half", 2), ("x/bytes", 2), ("x/one", 6), ("x/onnx", 8), ("x/step", 6), ("x/l", 7)];
    for (label, rounds) in all {
        let report: Value = serde_json::from_str(&project.read(&format!("out/{label}/verify.json"))).expect("JSON");
        assert_eq!(report["rounds"], rounds, "{label}");
        let most = report["tolerance"].as_f64().expect("a number");
        assert!(report["max_relative_error"].as_f64().is_some_and(|error| error < most), "{label}: {report}");
        let program = if label == "x/onnx" { "rten 0.24.0" } else { "effai's evaluator of TensorFlow Lite" };
        assert_eq!(report["program"], program, "{label}");
    }
    let size = |label: &str| project.read_bytes(&format!("out/{label}/model.tflite")).len();
    assert!(size("x/bytes") < size("x/half") && size("x/half") < size("x/m"));
    let file = project.read_bytes("out/x/m/model.tflite");
    assert_eq!(&file[4..8], b"TFL3");
    for text in ["effai.source", "license", "mit", "serving_default", "sentence_embedding"] {
        assert!(file.windows(text.len()).any(|bytes| bytes == text.as_bytes()), "{text}");
    }
    let card = project.read("out/x/one/README.md");
    assert!(card.contains("library_name: tflite") && card.contains("`attention_mask` [1, 8]"), "{card}");
}

#[test]
fn a_model_becomes_a_package_that_is_held_against_it() {
    let project = project(
        r#"
export "x/m" { from "m"; format "coreml"; text "a red heart"; }
export "x/half" { from "m"; format "coreml" precision="f16" target="macOS14"; verify rounds=2; }
export "x/palette" { from "m"; format "coreml" precision="palette6-weights" weight-threshold=255; verify rounds=2; }
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
fn a_package_keeps_what_a_language_model_has_read() {
    let project = project(
        r#"
export "x/l" { from "l"; format "coreml" state=16; text "one"; text "two and more"; }
export "x/half" { from "l"; format "coreml" precision="f16" state=16; verify rounds=2; }
"#,
    );
    project.builds(&[]);
    for label in ["x/l", "x/half"] {
        let report: Value = serde_json::from_str(&project.read(&format!("out/{label}/verify.json"))).expect("JSON");
        assert!(report["max_relative_error"].as_f64().is_some_and(|error| error < 2e-3), "{label}: {report}");
        assert!(report["rounds"].as_u64().is_some_and(|rounds| rounds > 6), "{label}: {report}");
        let card = project.read(&format!("out/{label}/README.md"));
        assert!(card.contains("as Core ML for iOS 18 and macOS 15 and later"), "{card}");
        assert!(card.contains("State: `keyCache` ["), "{card}");
    }
    let said = project.effai(&["build", "--check", "x/l"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let said = {
        project.edit("effai.kdl", "state=16; text", "state=1; text");
        project.effai(&["build", "x/l"])
    };
    assert!(said.stderr.contains("and `state` holds 1"), "{}", said.stderr);
}

#[test]
fn a_file_is_given_pictures_in_bytes() {
    let project = project(
        r#"
export "x/{format}" {
    matrix { format "onnx" "coreml" "tflite"; }
    from "c"
    part "picture"
    pixels "uint8"
    format "{format}"
    about author="A. Maker" version="2.1"
}
"#,
    );
    project.builds(&["x/*"]);
    for (format, given) in [
        ("onnx", "`pixel_values` [batch, 3, 20, 20], red, green and blue in 8 bits each"),
        ("coreml", "`pixel_values`, a picture of 20 x 20 pixels in red, green and blue"),
        ("tflite", "`pixel_values` [batch, 20, 20, 3], red, green and blue in 8 bits each"),
    ] {
        let report: Value = serde_json::from_str(&project.read(&format!("out/x/{format}/verify.json"))).expect("JSON");
        assert!(report["max_relative_error"].as_f64().is_some_and(|error| error < 1e-5), "{format}: {report}");
        let card = project.read(&format!("out/x/{format}/README.md"));
        assert!(card.contains(given), "{card}");
    }
    // Core ML and TensorFlow Lite have places of their own for it.
    for (format, file) in [
        ("onnx", "model.onnx"),
        ("coreml", "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"),
        ("tflite", "model.tflite"),
    ] {
        let file = project.read_bytes(&format!("out/x/{format}/{file}"));
        for said in ["A. Maker", "2.1", "mit", "parameters, imported from", "effai.weights", "blake3:"] {
            assert!(file.windows(said.len()).any(|bytes| bytes == said.as_bytes()), "{format}: {said}");
        }
    }
    assert!(project.read("out/x/onnx/README.md").contains("license: mit\n"));
    // What is left to do to a picture.
    let file = project.read_bytes("out/x/onnx/model.onnx");
    let left = br#""mean":0.0,"std":1.0"#;
    assert!(file.windows(left.len()).any(|bytes| bytes == left));
}

#[test]
fn a_file_gives_labels_in_place_of_vectors() {
    let project = project(
        r#"
export "x/{format}" {
    matrix { format "onnx" "coreml" "tflite"; }
    from "c"
    part "picture"
    pixels "uint8"
    labels "Heart" "red apple" "dog|cat" { prompt "an emoji of {}"; prompt "{}"; }
    format "{format}"
}
export "x/prepared" {
    from "c"
    part "picture"
    labels "yes" "no" { prompt "{}"; }
    format "coreml" precision="f16"
    shape batch=1
}
"#,
    );
    project.builds(&["x/*"]);
    for (format, file, gives) in [
        ("onnx", "model.onnx", "Out: `probabilities` [batch, 3], of the labels in their order."),
        (
            "coreml",
            "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
            "Out: `classLabel`, the likeliest label, and `classLabel_probs`, the probability of each of 3.",
        ),
        ("tflite", "model.tflite", "Out: `probabilities` [batch, 3], of the labels in their order."),
    ] {
        let json = |file: &str| -> Value {
            serde_json::from_str(&project.read(&format!("out/x/{format}/{file}"))).expect("JSON")
        };
        let report = json("verify.json");
        assert!(report["max_relative_error"].as_f64().is_some_and(|error| error < 1e-5), "{format}: {report}");
        assert_eq!(project.read(&format!("out/x/{format}/labels.txt")), "Heart\nred apple\ndog|cat\n");
        let config = json("config.json");
        assert_eq!(config["id2label"], json!({"0": "Heart", "1": "red apple", "2": "dog|cat"}));
        assert_eq!(config["label2id"], json!({"Heart": 0, "red apple": 1, "dog|cat": 2}));
        assert_eq!((&config["model_type"], &json("export.json")["labels"]), (&"clip".into(), &3.into()));
        let card = project.read(&format!("out/x/{format}/README.md"));
        let row = r"| 2 | dog\|cat | an emoji of dog\|cat; dog\|cat |";
        for said in [gives, "| 0 | Heart | an emoji of heart; heart |", row] {
            assert!(card.contains(said), "{format}: {card}");
        }
        let file = project.read_bytes(&format!("out/x/{format}/{file}"));
        let listed = br#"["Heart","red apple","dog|cat"]"#;
        assert!(file.windows(listed.len()).any(|bytes| bytes == listed), "{format}");
    }
    let again = project.effai(&["build", "--check", "x/onnx", "x/coreml", "x/tflite"]);
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
    let said = fails("from \"m\"; format \"tflite\" opset=17", 2);
    assert!(said.contains("`opset` means nothing to `tflite`"), "{said}");
    let said = fails("from \"m\"; format \"tflite\" precision=\"f16-weights\" weight-threshold=100", 2);
    assert!(said.contains("`weight-threshold` means nothing to `tflite` in `f16-weights`"), "{said}");
    let said = fails("from \"m\"; format \"tflite\" precision=\"f16\"", 2);
    assert!(
        said.contains("it can be one of `f32`, `f16-weights`, `int8`, `int8-calibrated`, `int8-weights`"),
        "{said}"
    );
    let said = fails("from \"m\"; format \"tflite\"; shape sequence=4; text \"a red heart\"", 2);
    assert!(said.contains("a text has a length of its own, and `sequence` is another"), "{said}");
    let said = fails("from \"l\"; format \"tflite\"; shape past=4", 2);
    assert!(said.contains("`past` without `sequence` says nothing of how many tokens there are"), "{said}");
    let said = fails("from \"m\"; format \"tflite\"; shape sequence=4 past=4", 2);
    assert!(said.contains("what the model is given has no `past`"), "{said}");
    let said = fails("from \"m\"; format \"coreml\" precision=\"int4-weights\" target=\"iOS17\"", 2);
    assert!(said.contains("iOS 17 and macOS 14 have no operators for `int4-weights`"), "{said}");
    let said = fails("from \"l\"; format \"coreml\" state=8 target=\"iOS17\"", 2);
    assert!(said.contains("iOS 17 and macOS 14 have no state"), "{said}");
    let said = fails("from \"l\"; format \"tflite\" state=8", 2);
    assert!(said.contains("`state` means nothing to `tflite`"), "{said}");
    let said = fails("from \"l\"; format \"coreml\" state=8; shape batch=1", 2);
    assert!(said.contains("a file with `state` is given one text"), "{said}");
    let said = fails("from \"m\"; format \"coreml\" state=8", 2);
    assert!(said.contains("`state` is for language models, and this part reads whole texts"), "{said}");
    let said = fails("from \"m\"; format \"onnx\" precision=\"palette4-weights\"", 2);
    assert!(said.contains("`onnx` is not written in `palette4-weights`"), "{said}");
    let said = fails("from \"m\"; pixels \"uint8\"; format \"onnx\"", 2);
    assert!(said.contains("`pixels` is for what sees pictures, and this part reads texts"), "{said}");
    let said = fails("from \"m\"; format \"tflite\" precision=\"int8-calibrated\"", 2);
    assert!(said.contains("the precision `int8-calibrated` needs `calibrate`"), "{said}");
    let said = fails("from \"m\"; format \"tflite\"; calibrate \"c\"", 2);
    assert!(said.contains("`calibrate` means nothing to the precision `f32`"), "{said}");
    let said = fails("from \"m\"; about version=\"2\"; format \"mlx\"", 2);
    assert!(said.contains("`about` means nothing to `mlx`, which has weights alone"), "{said}");
    let said = fails("from \"c\"; pixels \"uint8\"; format \"mlx\"", 2);
    assert!(said.contains("`pixels` means nothing to `mlx`, which has weights alone"), "{said}");
    let said = fails("from \"c\"; part \"picture\"; pixels \"uint8\"; format \"coreml\"; shape batch=2", 2);
    assert!(said.contains("Core ML is given one picture at a time"), "{said}");
    let labels = |names: &str, rest: &str| format!("labels {names} {{ prompt \"{{}}\"; }}; {rest}");
    for (names, rest, code, wanted) in [
        ("\"a\" \"b\"", "from \"m\"; format \"onnx\"", 2, "`labels` are for what sees pictures, and this part reads"),
        ("\"a\" \"b\"", "from \"l\"; format \"onnx\"", 2, "`labels` are for what sees pictures, and this part reads"),
        ("\"a\" \"b\"", "from \"c\"; part \"text\"; format \"onnx\"", 2, "and the part `text` reads"),
        ("\"a\" \"b\"", "from \"c\"; format \"mlx\"", 2, "`labels` mean nothing to `mlx`"),
        ("\"a\"", "from \"c\"; part \"picture\"; format \"onnx\"", 2, "`a` is the only label"),
        ("\"Cat\" \"cat\"", "from \"c\"; part \"picture\"; format \"onnx\"", 2, "the label `cat` is there twice"),
        ("\"a\" \" \"", "from \"c\"; part \"picture\"; format \"onnx\"", 2, "a label has no name"),
        ("\"a\" \"b\\nc\"", "from \"c\"; part \"picture\"; format \"onnx\"", 2, "is more than one line"),
        (
            "\"a\" \"b\"",
            "from \"c\"; part \"picture\"; format \"coreml\"; shape batch=2",
            2,
            "Core ML is given one picture at a time",
        ),
    ] {
        let said = fails(&labels(names, rest), code);
        assert!(said.contains(wanted), "{said}");
    }
    let said = fails("from \"c\"; part \"picture\"; labels \"a\" \"b\" { prompt \"a thing\"; }; format \"onnx\"", 2);
    assert!(said.contains("the prompt \"a thing\" has no place for a label"), "{said}");
    let said = fails("from \"m\"; format \"coreml\"; environment \"m\"", 2);
    assert!(said.contains("`environment` means nothing to `coreml`, which effai runs by no package"), "{said}");
    let said = fails("from \"m\"; format \"onnx\" opset=12", 2);
    assert!(said.contains("opset"), "{said}");
    let said = fails("from \"m\"; format \"onnx\"; verify #false tolerance=0.1", 2);
    assert!(said.contains("`tolerance` means nothing where the file is not held against the model"), "{said}");
    let said = fails("from \"m\"; format \"onnx\"; verify tolerance=1e-12", 1);
    assert!(said.contains("the exported file and its model differ by"), "{said}");
    assert!(said.contains("a wider `tolerance` or `cosine` allows it"), "{said}");
    for (export, code, wanted) in [
        ("format \"mlx\" opset=17", 2, "`opset` means nothing to `mlx`"),
        ("format \"safetensors\" precision=\"int8\"", 2, "`safetensors` is not written in `int8`"),
        ("part \"text\"; format \"mlx\"", 2, "a `mlx` file has all parts of a model"),
        ("format \"gguf\"", 2, "GGUF holds language models of the architecture `llama`"),
    ] {
        let said = fails(&format!("from \"m\"; {export}"), code);
        assert!(said.contains(wanted), "{said}");
    }
}

/// What measures a model measures an export of it: the same vectors, the same losses, each by the program that runs the file.
#[test]
fn an_export_is_measured_as_its_model_is() {
    let project = project(
        r#"
dataset "d" {
    files "own" { glob "words.jsonl"; }
    records "own" from="own" file="words.jsonl" { caption "{p}"; column "prompt" value="{p}"; column "completion" value="{c}"; }
    split train=0.0 validation=0.0 test=1.0
}
export "x/{model}" { matrix { model "m" "l"; }; from "{model}"; format "onnx"; }
export "x/see" { from "c"; part "picture"; pixels "uint8"; format "onnx"; shape batch=2; }
export "x/app" { from "m"; format "coreml"; verify #false; }
export "x/labels" { from "c"; part "picture"; labels "a" "b" { prompt "{}"; }; format "onnx"; verify #false; }
export "x/phone" { from "m"; format "tflite"; verify #false; }
features "f/own" { of "m"; on "d"; }
features "f/file" { of "x/m"; on "d"; }
features "f/app" { of "x/app"; on "d"; }
features "f/phone" { of "x/phone"; on "d"; }
features "f/labels" { of "x/labels"; on "d"; }
perplexity "p/own" { of "l"; on "d"; ask "3 and 3 are"; max-tokens 4; }
perplexity "p/file" { of "x/l"; on "d"; against "l"; ask "3 and 3 are"; max-tokens 4; }
perplexity "p/none" { of "x/m"; on "d"; }
report "r/near" { compare "m" "x/m"; on "d"; metrics "cosine" "speed"; rounds 5; }
report "r/language" { compare "l" "x/l"; on "d"; metrics "kl" "speed"; rounds 5; }
report "r/finds" { compare "x/m"; test "t" on="d" split="test"; }
benchmark "b/language" {
    subject "model" model="l"
    subject "file" model="x/l"
    workload "chat" prompt=6 generate=2
    workload "warm" load="warm"
    rounds min=3 max=3
}
benchmark "b/phone" { subject "file" model="x/phone"; rounds min=3 max=3; }
benchmark "b/sees" { subject "file" model="x/see"; rounds min=3 max=3; }
"#,
    );
    words(&project);
    project.builds(&["f/own", "f/file", "p/own", "p/file", "r/near", "r/language", "b/language", "b/sees"]);
    let json = |path: &str| -> Value { serde_json::from_str(&project.read(&format!("out/{path}"))).expect("JSON") };

    let row = &json("r/near/report.json")["encoded"][0]["rows"][1];
    assert!(row["distance"]["value"].as_f64().is_some_and(|distance| distance < 1e-9), "{row}");
    assert_eq!(json("r/near/report.json")["subjects"][1]["speed"]["backend"], "rten 0.24.0");
    let (own, file) = (json("p/own/losses.json"), json("p/file/losses.json"));
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {value}"));
    assert!((number(&own["loss"]) - number(&file["loss"])).abs() < 1e-5, "{} {}", own["loss"], file["loss"]);
    assert_eq!((&own["answers"], &own["tokens"]), (&file["answers"], &file["tokens"]));
    assert!(number(&file["divergence"]["mean"]) < 1e-6 && file["same_top"]["mean"] == 1.0);

    let rows = json("b/language/report.json")["timing"]["rows"].clone();
    let of = |row: &Value| ["backend", "label"].map(|name| row["model"][name].as_str().unwrap_or_default().to_owned());
    let by: Vec<_> = rows.as_array().expect("rows").iter().map(of).collect();
    assert_eq!(
        by,
        [["candle", "l"], ["rten", "x/l"], ["candle", "l"], ["rten", "x/l"]].map(|row| row.map(String::from))
    );
    // Beside the model, whatever computes that.
    assert!(number(&rows[1]["ratio"]["value"]) > 0.0 && rows[1]["by_backend"].is_null(), "{rows}");
    assert!(number(&rows[1]["model"]["memory"]["token_bytes"]) > 0.0);
    let sees = json("b/sees/report.json")["timing"]["rows"][0]["model"].clone();
    assert_eq!((&sees["backend"], &sees["workload"]["name"]), (&"rten".into(), &"pictures".into()));

    for (target, code, wanted) in [
        ("f/app", 2, "effai has nothing that runs `coreml`"),
        ("f/labels", 2, "this export gives probabilities of 2 labels, and no vectors"),
        ("f/phone", 2, "the export names no `environment`, and LiteRT, which runs `tflite`, is of one"),
        ("b/phone", 2, "add `environment \"envs/run\"` to the export"),
        ("p/none", 2, "this export is no language model"),
        ("r/finds", 2, "x/m makes no vectors of pictures, and retrieval needs those of both"),
    ] {
        let run = project.effai(&["build", target]);
        assert_eq!(run.code, code, "{target}: {}", run.stderr);
        assert!(run.stderr.contains(wanted), "{target}: {}", run.stderr);
    }
}

#[test]
fn weights_are_written_in_the_layouts_of_others_and_opened_again() {
    let project = project(
        r#"
export "x/{model}-{format}-{precision}" {
    matrix {
        model "m" "l"
        format "mlx" "safetensors"
        precision "f32" "f16" "bf16"
    }
    from "{model}"
    format "{format}" precision="{precision}"
}
export "x/{model}-{precision}" {
    matrix { model "m" "l"; precision "int8-weights" "int4-weights"; }
    from "{model}"
    format "mlx" precision="{precision}"
    verify tolerance=1 cosine=0.5
}
export "x/gguf-{precision}" {
    matrix { precision "f32" "f16" "int8-weights" "int4-weights"; }
    from "l"
    format "gguf" precision="{precision}"
    text "one and more"
    verify tolerance=1 cosine=0.5
}
"#,
    );
    project.builds(&[]);
    let off = |label: &str| -> f64 {
        let report: Value = serde_json::from_str(&project.read(&format!("out/{label}/verify.json"))).expect("JSON");
        assert!(report["program"].as_str().is_some_and(|program| program.starts_with("effai's own reader")));
        report["max_relative_error"].as_f64().expect("a number")
    };
    let size = |file: &str| project.read_bytes(&format!("out/{file}")).len();
    for model in ["m", "l"] {
        for format in ["mlx", "safetensors"] {
            let label = |precision: &str| format!("x/{model}-{format}-{precision}");
            assert_eq!(off(&label("f32")), 0.0);
            assert!((1e-6..2e-3).contains(&off(&label("f16"))), "{}", off(&label("f16")));
            assert!((1e-5..2e-2).contains(&off(&label("bf16"))), "{}", off(&label("bf16")));
            let file = |precision: &str| size(&format!("{}/model.safetensors", label(precision)));
            assert!(file("f16") < file("f32") && file("f16").abs_diff(file("bf16")) < 1000);
        }
        let (eight, four) = (off(&format!("x/{model}-int8-weights")), off(&format!("x/{model}-int4-weights")));
        assert!(0.0 < eight && eight < four, "{eight} {four}");
        let config = project.read(&format!("out/x/{model}-int4-weights/config.json"));
        assert!(config.contains(r#""bits": 4"#), "{config}");
    }
    let gguf = ["f32", "f16", "int8-weights", "int4-weights"]
        .map(|precision| (off(&format!("x/gguf-{precision}")), size(&format!("x/gguf-{precision}/model.gguf"))));
    assert_eq!(gguf[0].0, 0.0);
    for pair in gguf.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].1 > pair[1].1, "{gguf:?}");
    }
}
