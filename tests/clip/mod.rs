//! Picture-text models in the layout of Hugging Face's `CLIPModel`, on one so small that a step takes a millisecond. Its
//! numbers are held against transformers' by tests/reference/clip.py.

use std::io::Cursor;

use effai::backend::arrays::{Array, Arrays};
use effai::backend::rng::Rng;
use effai::backend::{CandleTensor, Tensor};
use effai::format::tensors;
use effai::model::{Checkpoint, Model};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

use crate::support::Project;

const BACKENDS: &[&str] = if cfg!(feature = "mlx") { &["candle", "mlx"] } else { &["candle"] };
const COLOURS: &[(&str, [u8; 3])] = &[
    ("red", [220, 30, 30]),
    ("green", [30, 200, 40]),
    ("blue", [40, 50, 230]),
    ("yellow", [230, 220, 40]),
    ("black", [10, 10, 10]),
    ("grey", [128, 128, 128]),
];
const WIDTH: usize = 32;
const SIZE: usize = 16;

fn weights() -> Arrays {
    let mut arrays = Arrays::new();
    let mut add = |name: String, shape: &[usize]| {
        let mut rng = Rng::new(1, &name);
        let gain = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        let values = (0..shape.iter().product()).map(|_| gain + 0.2 * rng.normal()).collect();
        arrays.insert(name, Array::f32(shape, values));
    };
    let norms = |add: &mut dyn FnMut(String, &[usize]), names: &[&str]| {
        for name in names {
            add(format!("{name}.weight"), &[WIDTH]);
            add(format!("{name}.bias"), &[WIDTH]);
        }
    };
    for tower in ["text_model", "vision_model"] {
        for layer in 0..2 {
            let name = |part: &str| format!("{tower}.encoder.layers.{layer}.{part}");
            for (part, out, inner) in [
                ("self_attn.q_proj", WIDTH, WIDTH),
                ("self_attn.k_proj", WIDTH, WIDTH),
                ("self_attn.v_proj", WIDTH, WIDTH),
                ("self_attn.out_proj", WIDTH, WIDTH),
                ("mlp.fc1", 2 * WIDTH, WIDTH),
                ("mlp.fc2", WIDTH, 2 * WIDTH),
            ] {
                add(name(&format!("{part}.weight")), &[out, inner]);
                add(name(&format!("{part}.bias")), &[out]);
            }
            norms(&mut add, &[&name("layer_norm1"), &name("layer_norm2")]);
        }
    }
    norms(&mut add, &["text_model.final_layer_norm", "vision_model.pre_layrnorm", "vision_model.post_layernorm"]);
    add("text_model.embeddings.token_embedding.weight".into(), &[words().len(), WIDTH]);
    add("text_model.embeddings.position_embedding.weight".into(), &[8, WIDTH]);
    add("vision_model.embeddings.patch_embedding.weight".into(), &[WIDTH, 3, 8, 8]);
    add("vision_model.embeddings.class_embedding".into(), &[WIDTH]);
    add("vision_model.embeddings.position_embedding.weight".into(), &[5, WIDTH]);
    add("text_projection.weight".into(), &[12, WIDTH]);
    add("visual_projection.weight".into(), &[12, WIDTH]);
    arrays.insert("logit_scale".into(), Array::f32(&[], vec![2.0]));
    arrays
}

fn words() -> Vec<&'static str> {
    let colours = COLOURS.iter().map(|(name, _)| *name);
    colours.chain(["a", "picture", "large", "[UNK]", "<start>", "<end>"]).collect()
}

fn tokenizer() -> Value {
    let vocab: serde_json::Map<String, Value> =
        words().iter().enumerate().map(|(n, word)| ((*word).to_owned(), n.into())).collect();
    let special = |word: &str| json!({"id": word, "ids": [vocab[word]], "tokens": [word]});
    let piece = |word: &str| json!({"SpecialToken": {"id": word, "type_id": 0}});
    let one = json!([piece("<start>"), {"Sequence": {"id": "A", "type_id": 0}}, piece("<end>")]);
    json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing", "single": one, "pair": one,
            "special_tokens": {"<start>": special("<start>"), "<end>": special("<end>")},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    })
}

fn config() -> Value {
    let tower = json!({
        "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4,
    });
    let mut config = json!({"model_type": "clip", "projection_dim": 12, "text_config": tower, "vision_config": tower});
    config["text_config"]["vocab_size"] = words().len().into();
    config["text_config"]["max_position_embeddings"] = 8.into();
    config["text_config"]["eos_token_id"] = (words().len() - 1).into();
    config["vision_config"]["image_size"] = SIZE.into();
    config["vision_config"]["patch_size"] = 8.into();
    config
}

/// The archive `clip.zip`, with this configuration and this file of how pictures are prepared.
fn pack(project: &Project, config: &Value, preprocessor: &Value) {
    let dir = tempfile::tempdir().expect("made");
    let path = dir.path().join("w");
    tensors::write(&path, &weights(), &[("format", "pt")]).expect("written");
    project.archive(
        "clip.zip",
        &[
            ("config.json", config.to_string().as_bytes()),
            ("tokenizer.json", tokenizer().to_string().as_bytes()),
            ("preprocessor_config.json", preprocessor.to_string().as_bytes()),
            ("model.safetensors", &std::fs::read(&path).expect("there")),
        ],
    );
}

/// The target `m`: the model of the archive.
const MODEL: &str = r#"model "m" {
    source path="clip.zip" {
        weights "model.safetensors"; config "config.json"; tokenizer "tokenizer.json"
        preprocessor-config "preprocessor_config.json"
    }
    architecture "clip"
}"#;

/// The model, which sees pictures of 16 pixels a side and reads 8 tokens, and these targets besides.
pub(crate) fn with_targets(targets: &str) -> Project {
    let project = Project::new(&format!("{MODEL}\n{targets}"));
    pack(&project, &config(), &json!({"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}));
    project
}

/// Pictures of one colour each and one tint of it, with the model, and an adapter `a` of this method.
fn project(method: &str, train: &str) -> Project {
    let project = with_targets(&format!(
        r#"dataset "d" {{
    files "own" {{ glob "pictures/*"; }}
    records "own" from="own" file="pictures/captions.jsonl" {{
        id "{{file}}"; image "pictures/{{file}}"; caption "{{caption}}"
    }}
    split train=0.7 validation=0.3 test=0.0
}}
adapter "a" {{
    base "m"
    method {method}
    train "d" {{ batch 64; learning-rate 3e-3; warmup 2; views 2; {train}; }}
}}
features "f" {{ of "a"; on "d"; }}
quantized "q" {{ from "m" adapter="a"; method "rtn" bits=8 group=32; }}
features "g" {{ of "q"; on "d"; }}
"#
    ));
    let mut lines = Vec::new();
    for (n, (name, colour)) in COLOURS.iter().enumerate() {
        for (size, what) in [(SIZE as u32, "a"), (2 * SIZE as u32 + 3, "large")] {
            let file = format!("{what}-{n}.png");
            let mut bytes = Cursor::new(Vec::new());
            RgbImage::from_pixel(size, size + 5, Rgb(*colour)).write_to(&mut bytes, ImageFormat::Png).expect("written");
            std::fs::create_dir_all(project.path("pictures")).expect("made");
            std::fs::write(project.path(&format!("pictures/{file}")), bytes.into_inner()).expect("written");
            lines.push(json!({"file": file, "caption": format!("{what} {name} picture")}).to_string());
        }
    }
    project.write("pictures/captions.jsonl", &lines.join("\n"));
    project
}

const LORA: &str = "\"lora\" rank=4\n    target-modules \"q_proj\" \"*.layers.1.mlp.fc1\"";

fn curve(project: &Project) -> Vec<f64> {
    let curves: Value = serde_json::from_str(&project.read("out/a/training.json")).expect("JSON");
    curves["train"].as_array().expect("steps").iter().map(|p| p[1].as_f64().expect("a loss")).collect()
}

#[test]
fn both_ways_of_training_learn_and_each_backend_repeats_itself() {
    for method in [LORA, "\"full\""] {
        let mut curves = Vec::new();
        for backend in BACKENDS {
            let [first, second] = ["1", "2"].map(|threads| {
                let project = project(method, "epochs 12");
                let run = project.effai(&["build", "a", "--backend", backend, "-j", threads]);
                assert_eq!(run.code, 0, "{}", run.stderr);
                project
            });
            let file = if method == LORA { "adapter_model.safetensors" } else { "model.safetensors" };
            let read = |project: &Project| project.read_bytes(&format!("out/a/{file}"));
            assert_eq!(read(&first), read(&second), "{method} {backend}");
            let curve = curve(&first);
            assert!(curve[11] < 0.8 * curve[0], "{method} {backend}: {curve:?}");
            curves.push(curve);
        }
        for other in &curves[1..] {
            let apart = curves[0].iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-3, "as docs/backends.md states: {apart}");
        }
    }
}

#[test]
fn what_is_made_of_it_is_read_again() {
    for method in [LORA, "\"full\""] {
        let project = project(method, "epochs 4");
        project.builds(&[]);
        let vectors = |label: &str| -> Vec<f32> {
            let path = project.path(&format!("out/{label}/images-train.safetensors"));
            tensors::read(&path).expect("there")["image"].floats().to_vec()
        };
        let (whole, rounded) = (vectors("f"), vectors("g"));
        let apart = whole.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart > 0.0 && apart < 0.05, "{method}: {apart}");
        for file in ["preprocessor_config.json", "tokenizer.json", "config.json"] {
            assert!(project.path(&format!("out/q/{file}")).exists(), "{file}");
            assert_eq!(project.path(&format!("out/a/{file}")).exists(), method != LORA, "{method} {file}");
        }
    }
}

#[test]
fn a_tower_in_two_parts_computes_what_the_whole_does() {
    let project = project(LORA, "epochs 1");
    project.builds(&["m"]);
    let model =
        Model::<CandleTensor>::new(&Checkpoint::open(&project.path("out/m"), None).expect("opens")).expect("fits");
    let mut rng = Rng::new(1, "pictures");
    let values: Vec<f32> = (0..2 * SIZE * SIZE * 3).map(|_| rng.normal()).collect();
    let pictures = CandleTensor::from_f32(&values, &[2, SIZE, SIZE, 3]).expect("fits");
    let tower = model.tower().expect("it sees");
    let whole = model.picture_batch(&pictures).expect("computes").to_f32().expect("values");
    for split in 0..=tower.depth() {
        let midway = tower.prefix(&model.weights, &pictures, split).expect("computes");
        let pooled = tower.tail(&model.weights, midway, split).expect("computes");
        let found = model.project_pictures(pooled, None).expect("computes").to_f32().expect("values");
        assert_eq!(found, whole, "{split}");
    }
    let modules = ["vision_model.embeddings.patch_embedding", "vision_model.encoder.layers.1.mlp.fc1"];
    assert_eq!(modules.map(|module| tower.piece(module)), [Some(0), Some(2)]);
    assert_eq!(tower.piece("text_model.encoder.layers.1.mlp.fc1"), None);
}

#[test]
fn what_does_not_fit_is_one_error() {
    let fails = |config: &Value, preprocessor: &Value| -> String {
        let project = project(LORA, "epochs 2");
        pack(&project, config, preprocessor);
        let run = project.effai(&["build", "m"]);
        assert_eq!(run.code, 1, "{}", run.stderr);
        assert!(!project.path("out/m").exists());
        run.stderr
    };
    let sees = |size: usize| json!({"size": size, "crop_size": size});
    let mut odd = config();
    odd["vision_config"]["hidden_act"] = "relu".into();
    let said = fails(&odd, &sees(SIZE));
    assert!(said.contains("the model's unit is `relu`, and only `quick_gelu` and `gelu` are supported"), "{said}");
    let said = fails(&config(), &sees(24));
    assert!(said.contains("makes pictures of 24 pixels, and the model sees 16"), "{said}");
    let said = fails(&config(), &json!({"size": SIZE, "crop_size": SIZE, "resample": 0}));
    assert!(said.contains("`resample` is 0, and only 3, bicubic, is supported"), "{said}");

    let project = project("\"lora\" rank=2\n    target-modules \"query\"", "epochs 2");
    let run = project.effai(&["build", "a"]);
    assert!(run.stderr.contains("there are: fc1, fc2, k_proj, out_proj, q_proj"), "{}", run.stderr);
    project.edit("effai.kdl", "    architecture \"clip\"", "    architecture \"clip\"\n    image-size 32");
    let run = project.effai(&["build", "m"]);
    assert!(run.stderr.contains("the model's own files say what it sees"), "{}", run.stderr);
    assert_eq!(run.code, 2);
}

#[test]
fn a_merged_model_gives_the_vectors_of_base_and_adapter() {
    let project = project(LORA, "epochs 2");
    let more = "merge \"x\" { base \"m\"; adapter \"a\"; }\nfeatures \"h\" { of \"x\"; on \"d\"; }\n";
    project.write("effai.kdl", &format!("{}{more}", project.read("effai.kdl")));
    project.builds(&["f", "h", "x"]);
    for (file, name) in [("images-train", "image"), ("texts", "text")] {
        let vectors = |label: &str| -> Vec<f32> {
            let path = project.path(&format!("out/{label}/{file}.safetensors"));
            tensors::read(&path).expect("there")[name].floats().to_vec()
        };
        let apart = vectors("f").iter().zip(vectors("h")).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{file}: {apart}");
    }
    assert!(project.path("out/x/preprocessor_config.json").exists());
}

#[test]
fn its_speed_is_of_pictures_and_not_of_tokens() {
    let project = project(LORA, "epochs 1");
    let more = "speed \"s\" { of \"m\"; rounds 5; batch 2; }\nspeed \"t\" { of \"m\"; prompt 5; }\n";
    project.write("effai.kdl", &format!("{}{more}", project.read("effai.kdl")));
    project.builds(&["s"]);
    let found: Value = serde_json::from_str(&project.read("out/s/speed.json")).expect("JSON");
    assert_eq!(found["batch"], 2);
    for key in ["load_ms", "picture_p50_ms", "picture_p95_ms", "text_p50_ms", "texts_per_s", "pictures_per_s"] {
        assert!(found[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {found}");
    }
    let run = project.effai(&["build", "t"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(
        run.stderr.contains("`prompt` is of language models, and m is a model of texts or pictures")
            && run.stderr.contains("leave it out"),
        "{}",
        run.stderr
    );
}
