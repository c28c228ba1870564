//! Around language models: files that do not belong together, trainings that cannot begin, memory that runs out.

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use effai::backend::arrays::{Array, Arrays};
use serde_json::json;

use super::{Book, shell};
use crate::support::tiny::{DATA, MODEL, Tiny, WIDTH, project, words};
use crate::support::{Project, Run};

/// What `run` said, which must be one error and leave nothing in `out/`.
fn one_error(book: &mut Book, about: &str, project: &Project, args: &[&str], run: &Run) {
    assert!(run.code > 0, "{about}: {}", run.stderr);
    assert_eq!(run.stderr.lines().filter(|l| l.starts_with("error:")).count(), 1, "{about}: {}", run.stderr);
    assert!(!run.stderr.contains("panicked") && !run.stderr.contains("a bug in effai"), "{about}: {}", run.stderr);
    assert!(!project.path("out/a").exists() && !project.path("out/m").exists(), "{about}: something lies in out/");
    book.write(about, project, args, run);
}

/// Once what can be built is there: the rest says what is wrong, in an order that does not change.
fn fails(book: &mut Book, about: &str, project: &Project, args: &[&str]) {
    settle(project);
    let run = project.effai(args);
    one_error(book, about, project, args, &run);
}

fn settle(project: &Project) {
    for label in ["m", "d"] {
        project.effai(&["build", label]);
    }
    let _ = std::fs::remove_dir_all(project.path("out"));
}

/// A project that imports the model.
fn imported(tiny: &Tiny) -> Project {
    let project = Project::new(&format!("{MODEL}\n"));
    tiny.pack(&project, "tiny.zip", &[]);
    project
}

/// A project whose target `m` is a directory of these files that a command made, and `p` on it.
fn made(files: &[(&str, Vec<u8>)]) -> Project {
    let outputs: String = files.iter().map(|(name, _)| format!("output \"{name}\"; ")).collect();
    let project = Project::new(&format!(
        "command \"m\" {{ run \"sh\" \"-c\" \"cp its/* .\"; input \"its/*\"; {outputs}}}\n{DATA}\n\
         perplexity \"a\" {{ of \"m\"; on \"d\"; split \"train\"; }}\n"
    ));
    words(&project);
    std::fs::create_dir_all(project.path("its")).expect("made");
    files
        .iter()
        .for_each(|(name, bytes)| std::fs::write(project.path(&format!("its/{name}")), bytes).expect("written"));
    project
}

/// A GGUF file of the tiny Llama.
fn gguf() -> Vec<u8> {
    let tiny = Tiny::llama();
    let number = |name: &str| Value::U32(tiny.config[name].as_u64().expect("a number") as u32);
    let metadata = [
        ("general.architecture", Value::String("llama".into())),
        ("llama.embedding_length", number("hidden_size")),
        ("llama.feed_forward_length", number("intermediate_size")),
        ("llama.block_count", number("num_hidden_layers")),
        ("llama.attention.head_count", number("num_attention_heads")),
        ("llama.attention.head_count_kv", number("num_key_value_heads")),
        ("llama.context_length", number("max_position_embeddings")),
        ("llama.vocab_size", number("vocab_size")),
    ];
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    let renamed = |name: &str| {
        let pairs = [
            ("model.layers.", "blk."),
            ("model.embed_tokens", "token_embd"),
            ("model.norm", "output_norm"),
            ("self_attn.o_proj", "attn_output"),
            ("self_attn.", "attn_"),
            ("mlp.", "ffn_"),
            ("_proj", ""),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
        ];
        pairs.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
    };
    let tensor = |array: &Array| {
        let tensor = Tensor::from_slice(array.floats(), array.shape.as_slice(), &Device::Cpu).expect("fits");
        QTensor::quantize(&tensor, GgmlDType::F32).expect("of that type")
    };
    let tensors: Vec<(String, QTensor)> =
        tiny.arrays.iter().map(|(name, array)| (renamed(name), tensor(array))).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).expect("written");
    file.into_inner()
}

/// Where the header of a GGUF file says of which type a matrix is.
fn place_of_type(file: &[u8], name: &str) -> usize {
    let at = file.windows(name.len()).position(|bytes| bytes == name.as_bytes()).expect("it is there");
    // After the name: how many axes, and the length of each.
    at + name.len() + 4 + 2 * 8
}

fn import_gguf(bytes: &[u8]) -> Project {
    let project = Project::new(
        "model \"m\" { source path=\"m.zip\" { weights \"m.gguf\"; tokenizer \"tokenizer.json\"; }; architecture \"llama\"; }\n",
    );
    let tokenizer = Tiny::llama().tokenizer.to_string();
    project.archive("m.zip", &[("m.gguf", bytes), ("tokenizer.json", tokenizer.as_bytes())]);
    project
}

pub(super) fn files(book: &mut Book) {
    book.chapter("Files of a language model");
    let build = &["build"];
    let mut tiny = Tiny::llama();
    tiny.arrays.remove("model.layers.1.mlp.up_proj.weight");
    fails(book, "a weight that is missing", &imported(&tiny), build);
    let mut tiny = Tiny::llama();
    tiny.config["intermediate_size"] = 48.into();
    fails(book, "weights of another shape", &imported(&tiny), build);
    let mut tiny = Tiny::llama();
    tiny.config["eos_token_id"] = 257.into();
    fails(book, "a text's end that is no token", &imported(&tiny), build);
    let mut tiny = Tiny::llama();
    tiny.config["hidden_act"] = "gelu".into();
    fails(book, "a unit that is not known", &imported(&tiny), build);
    let mut tiny = Tiny::llama();
    tiny.config.as_object_mut().expect("an object").remove("rms_norm_eps");
    fails(book, "a configuration that lacks a field", &imported(&tiny), build);

    let mut tiny = Tiny::llama();
    tiny.arrays.insert("model.norm.weight".into(), Array::f32(&[WIDTH + 1], vec![0.0; WIDTH + 1]));
    fails(book, "a model that a command made, at its first use", &made(&tiny.files()), &["build", "a"]);
    let mut tiny = Tiny::llama();
    let whole = tiny.arrays;
    let (second, first): (Arrays, Arrays) = whole.into_iter().partition(|(name, _)| name.contains("layers.1."));
    tiny.arrays = first;
    let mut files = tiny.files();
    files[2].0 = "model-00001-of-00002.safetensors";
    let of = |arrays: &Arrays, file: &str| arrays.keys().map(|n| (n.clone(), file.into())).collect::<Vec<_>>();
    let map = [of(&tiny.arrays, files[2].0), of(&second, "model-00002-of-00002.safetensors")].concat();
    let map: serde_json::Map<String, serde_json::Value> = map.into_iter().collect();
    files.push(("model.safetensors.index.json", json!({ "weight_map": map }).to_string().into_bytes()));
    fails(book, "a shard that is missing", &made(&files), &["build", "a"]);
    let mut files = Tiny::llama().files();
    files[2].1.truncate(9000);
    fails(book, "weights that were cut off", &made(&files), &["build", "a"]);

    let mut file = gguf();
    let run = import_gguf(&file).effai(build);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let place = place_of_type(&file, "blk.1.ffn_up.weight");
    file[place] = 99;
    fails(book, "a GGUF file with a type that is not known", &import_gguf(&file), build);
    let mut file = gguf();
    file.truncate(file.len() - 100);
    fails(book, "a GGUF file that was cut off", &import_gguf(&file), build);
    let mut file = gguf();
    let place = place_of_type(&file, "blk.1.attn_q.weight");
    // Half as many rows.
    file[place - 8] = 8;
    fails(book, "a GGUF file with a matrix of another shape", &import_gguf(&file), build);
}

pub(super) fn training(book: &mut Book) {
    book.chapter("Training a language model");
    let build = &["build", "a"];
    let edited = |method: &str, from: &str, to: &str| {
        let project = project(method, "steps 2");
        project.edit("effai.kdl", from, to);
        project
    };
    let lora = r#""lora" rank=2"#;
    fails(book, "a rank larger than a matrix", &project(r#""lora" rank=12"#, "steps 2"), build);
    fails(book, "target modules that are none", &edited(lora, "\"v_proj\"", "\"w_proj\""), build);
    fails(book, "target modules that are none, all trained", &edited(r#""full""#, "\"v_proj\"", "\"*.w_proj\""), build);
    fails(book, "no split to train on", &edited(lora, "train=0.8", "train=0.0"), build);
    fails(
        book,
        "records without a column to learn",
        &edited(lora, "column \"completion\"", "column \"answer\""),
        build,
    );
    fails(book, "records with nothing to learn", &edited(lora, "steps 2", "steps 2; max-length 2"), build);
    let bf16 = edited(lora, "steps 2", "steps 2; precision \"bf16\"");
    fails(book, "a precision that candle has not", &bf16, &["build", "a", "--backend", "candle"]);
    bf16.edit("effai.kdl", "base \"m\"", "base \"m\"; backend \"candle\"");
    book.say("a precision that the named backend has not", &bf16, build);
    let mut tiny = Tiny::llama();
    tiny.tokenizer["model"]["vocab"]["1"] = 300.into();
    let project = edited(lora, "", "");
    tiny.pack(&project, "tiny.zip", &[]);
    fails(book, "a tokenizer that does not fit", &project, build);
    let project = edited(lora, "steps 2", "steps 1; max-length 14");
    settle(&project);
    book.say("records longer than was asked for", &project, build);
    let mut tiny = Tiny::llama();
    tiny.config["max_position_embeddings"] = 14.into();
    let project = edited(lora, "steps 2", "steps 1");
    tiny.pack(&project, "tiny.zip", &[]);
    settle(&project);
    book.say("records longer than the model reads", &project, build);
    let perplexity = "perplexity \"p\" { of \"m\"; on \"d\"; split \"train\"; }\n";
    project.write("effai.kdl", &format!("{}{perplexity}", project.read("effai.kdl")));
    book.say("records longer than the model reads, measured", &project, &["build", "p"]);
}

pub(super) fn asking(book: &mut Book) {
    book.chapter("Asking a language model, and its vectors");
    let long = "one and one are two, ".repeat(4);
    let project = imported(&Tiny::llama());
    assert_eq!(project.effai(&["build", "m"]).code, 0);
    book.say("a prompt that is too long", &project, &["run", "m", &long]);
    book.say("a prompt that is empty", &project, &["run", "m", ""]);
    let mut tiny = Tiny::llama();
    tiny.tokenizer["model"]["vocab"]["1"] = 300.into();
    book.say("a tokenizer that does not fit", &imported(&tiny), &["run", "m", "1 and"]);
    let features = |tiny: &Tiny| {
        let project = Project::new(&format!(
            "{}\n{DATA}\nfeatures \"a\" {{ of \"m\"; on \"d\"; prompt \"{{}} and 1\" column=\"prompt\"; }}\n",
            MODEL.replace("llama", "bert")
        ));
        tiny.pack(&project, "tiny.zip", &[]);
        words(&project);
        project
    };
    assert_eq!(features(&Tiny::bert()).effai(&["build", "a"]).code, 0);
    let mut tiny = Tiny::bert();
    tiny.tokenizer["model"]["vocab"]["1"] = 300.into();
    fails(book, "a sentence encoder's that does not fit", &features(&tiny), &["build", "a"]);
    let mut tiny = Tiny::bert();
    tiny.arrays.remove("encoder.layer.0.output.dense.bias");
    fails(book, "a sentence encoder's weight that is missing", &features(&tiny), &["build", "a"]);
}

pub(super) fn memory(book: &mut Book) {
    book.chapter("Memory");
    let killed = Project::new(&shell("kill -KILL $$"));
    fails(book, "a program that the system killed", &killed, &["build"]);
    let thrown = "terminate called after throwing an instance of 'std::bad_alloc'";
    let thrown = Project::new(&shell(&format!("echo \"{thrown}\"; kill -ABRT $$")));
    fails(book, "a program that C++ ended", &thrown, &["build"]);
    let about = "a training with too little";
    if cfg!(not(target_os = "linux")) {
        book.keep(about);
        return;
    }
    let project = project(r#""lora" rank=2"#, "steps 2");
    project.edit("effai.kdl", "batch 4", "batch 16");
    let mut tiny = Tiny::llama().config;
    tiny["intermediate_size"] = 16384.into();
    Tiny::of(tiny).pack(&project, "tiny.zip", &[]);
    settle(&project);
    let mut run = project.effai_within(SMALL_KIB, &["build", "a"]).expect("it ends");
    // Which of many like it cannot be had is chance.
    let size =
        |word: &str| if word.parse::<u64>().is_ok_and(|n| n > 1000) { "BYTES".to_owned() } else { word.to_owned() };
    run.stderr =
        run.stderr.lines().map(|line| line.split(' ').map(size).collect::<Vec<_>>().join(" ") + "\n").collect();
    one_error(book, about, &project, &["build", "a"], &run);
}

/// Address space in which effai runs, whose own code takes half of it unoptimised, and no training of a wide model.
const SMALL_KIB: u64 = 296_000;
