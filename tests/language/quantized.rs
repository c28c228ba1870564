//! Models of fewer bits, by every way. What they are is held against MLX, mlx-lm and `gguf` by tests/reference/quantize.py.

use serde_json::{Value, json};

use crate::support::Project;
use crate::support::tiny::{DATA, MODEL, Tiny, words};

/// A model whose rows are whole groups and blocks, and these targets of it.
fn project(targets: &str) -> Project {
    let project = Project::new(&format!("{MODEL}\n{DATA}\n{targets}\n"));
    let mut wide = Tiny::llama().config;
    for (name, value) in [("hidden_size", 64), ("intermediate_size", 256), ("num_hidden_layers", 2)] {
        wide[name] = value.into();
    }
    Tiny::of(wide).pack(&project, "tiny.zip", &[]);
    words(&project);
    project
}

fn divergence(project: &Project, label: &str) -> f64 {
    let found: Value = serde_json::from_str(&project.read(&format!("out/{label}/losses.json"))).expect("JSON");
    let own = &found["divergence"];
    let (low, high) = (own["interval"][0].as_f64().expect("a bound"), own["interval"][1].as_f64().expect("a bound"));
    let mean = own["mean"].as_f64().expect("a number");
    assert!(low <= mean && mean <= high, "{own}");
    mean
}

/// How far a target of the recipe is from the model, on records that were not read for it.
fn of(label: &str) -> String {
    format!("perplexity \"{label}-kl\" {{ of \"{label}\"; on \"d\"; split \"validation\"; against \"m\"; }}\n")
}

#[test]
fn more_bits_and_what_a_matrix_reads_bring_a_model_nearer() {
    let rtn = |bits: usize| format!("quantized \"r{bits}\" {{ from \"m\"; method \"rtn\" bits={bits} group=32; }}\n");
    let gptq = |bits: usize| {
        format!(
            "quantized \"g{bits}\" {{ from \"m\"; method \"gptq\" bits={bits} group=32; calibrate \"d\" rows=16; }}\n"
        )
    };
    let targets: String = [2, 3, 4, 6, 8].map(|bits| rtn(bits) + &of(&format!("r{bits}"))).concat()
        + &[3, 4].map(|bits| gptq(bits) + &of(&format!("g{bits}"))).concat()
        + &of("m");
    let project = project(&targets);
    project.builds(&[]);
    let found = [2, 3, 4, 6, 8].map(|bits| divergence(&project, &format!("r{bits}-kl")));
    assert!(found.windows(2).all(|two| two[1] < two[0]), "{found:?}");
    assert_eq!(divergence(&project, "m-kl"), 0.0);
    for bits in [3, 4] {
        let (made, plain) =
            (divergence(&project, &format!("g{bits}-kl")), divergence(&project, &format!("r{bits}-kl")));
        assert!(made < plain, "{bits} bits: {made} {plain}");
    }
}

#[test]
fn what_a_matrix_reads_brings_it_nearer_by_scales_too_and_bits_go_where_they_count() {
    let made = |label: &str, method: &str, more: &str| {
        format!("quantized \"{label}\" {{ from \"m\"; method {method}; {more} }}\n") + &of(label)
    };
    let (read, head) = ("calibrate \"d\" rows=16;", "matrices \"model.embed_tokens\" bits=8;");
    let targets = made("r3", "\"rtn\" bits=3 group=32", head)
        + &made("a3", "\"awq\" bits=3 group=32", &format!("{head} {read}"))
        + &made("r4", "\"rtn\" bits=4 group=32", "")
        + &made("mixed", "\"mixed\" size=\"130 KB\" group=32", read)
        + &made("s4", "\"rtn\" bits=4 group=32 symmetric=#true", "")
        + &made("c4", "\"rtn\" bits=4 per=\"channel\"", "")
        + &made("t4", "\"rtn\" bits=4 per=\"tensor\"", "")
        + &made("half", "\"rtn\" bits=8 group=32 dtype=\"float16\"", "")
        + &made("int8", "\"int8\"", "")
        + &made("smooth", "\"smoothquant\"", read);
    let project = project(&targets);
    project.builds(&[]);
    let kl = |label: &str| divergence(&project, &format!("{label}-kl"));
    assert!(kl("a3") < kl("r3"), "{} {}", kl("a3"), kl("r3"));
    for label in ["r4", "s4", "c4", "t4"] {
        assert!(kl(label) > 0.25 * kl("r4") && kl(label) < 4.0 * kl("r4"), "{label}: {}", kl(label));
    }
    for label in ["half", "int8", "smooth"] {
        assert!(kl(label) < 0.02 * kl("r4"), "{label}: {}", kl(label));
    }
    let own: Value = serde_json::from_str(&project.read("out/a3/config.json")).expect("JSON");
    assert_eq!(own["quantization"]["model.embed_tokens"]["bits"], 8);
    let size = |label: &str| project.read_bytes(&format!("out/{label}/model.safetensors")).len();
    assert!(size("mixed") <= 130_000 && size("mixed") > 115_000, "{}", size("mixed"));
    assert!(kl("mixed") < kl("r3"), "{} {}", kl("mixed"), kl("r3"));
    let config: Value = serde_json::from_str(&project.read("out/mixed/config.json")).expect("JSON");
    let settings = config["quantization"].as_object().expect("an object");
    let widths: std::collections::BTreeSet<_> = settings.values().filter_map(|own| own["bits"].as_u64()).collect();
    assert!(widths.len() > 1, "{widths:?}");
}

#[test]
fn a_conversion_beyond_its_limit_fails_and_leaves_why() {
    let target = |bits: usize, kl: f64| {
        format!("quantized \"q\" {{ from \"m\"; method \"rtn\" bits={bits} group=32; limit kl={kl} on=\"d\"; }}\n")
    };
    let fits = project(&target(8, 0.01));
    fits.builds(&[]);
    assert!(fits.path("out/q").exists());
    let crosses = project(&target(2, 0.0001));
    let run = crosses.effai(&["build", "q"]);
    assert_ne!(run.code, 0);
    let said = &run.stderr;
    assert!(said.contains("nats a token (95 % interval ") && said.contains("and 0.0001 is the limit"), "{said}");
    assert!(!crosses.path("out/q").exists());
    let at = said.split_whitespace().find(|word| word.ends_with("limit.json")).expect("where the report of why is");
    let why = std::fs::read_to_string(crosses.path(at)).expect("the report of why");
    let why: Value = serde_json::from_str(&why).expect("JSON");
    assert!(why["kl"].as_f64() > why["limit"].as_f64() && why["worst"][0]["kl"].as_f64() >= why["kl"].as_f64());
}

#[test]
fn what_is_read_is_a_fact_and_threads_are_none() {
    let methods = [
        ("g", "\"gptq\" bits=4 group=64"),
        ("a", "\"awq\" bits=3 group=32"),
        ("b", "\"mixed\" size=\"130 KB\" group=32"),
        ("s", "\"smoothquant\""),
    ];
    let target = |(label, method)| {
        format!("quantized \"{label}\" {{ from \"m\"; method {method}; calibrate \"d\" rows=16; }}\n")
    };
    let targets = methods.map(target).concat();
    let weights =
        |project: &Project| methods.map(|(label, _)| project.read_bytes(&format!("out/{label}/model.safetensors")));
    let [first, second, fourth] = ["1", "2", "4"].map(|threads| {
        let project = project(&targets);
        assert_eq!(project.effai(&["build", "-j", threads]).code, 0);
        project
    });
    assert_eq!(weights(&first), weights(&second));
    assert_eq!(weights(&first), weights(&fourth));
    let before = weights(&first);
    first.edit("words.jsonl", "3 and 3", "3 und 3");
    let why = first.effai(&["explain", "g"]).stdout;
    assert!(why.contains("d") && why.contains("words.jsonl"), "{why}");
    first.builds(&[]);
    let after = weights(&first);
    // Which bits a matrix gets may be the same.
    for ((label, _), (before, after)) in methods.iter().zip(before.iter().zip(&after)).filter(|((l, _), _)| *l != "b") {
        assert!(before != after, "{label}");
    }
}

#[test]
fn a_gguf_file_is_read_again() {
    let targets = "quantized \"q\" { from \"m\"; method \"gguf\" type=\"Q8_0\"; }
quantized \"k\" { from \"m\"; method \"gguf\" type=\"Q4_K\"; keep \"*.down_proj\"; }\n"
        .to_owned()
        + &of("q")
        + &of("k");
    let project = project(&targets);
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    // Rows of 64 are no whole block of a K-quant.
    for said in ["12 tensors are Q5_0, with rows that are no multiple of the 256 weights", "1 tensor is Q8_0"] {
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
    let (eight, four) = (divergence(&project, "q-kl"), divergence(&project, "k-kl"));
    assert!(eight < 1e-3 && four > 10.0 * eight, "{eight} {four}");
    let ask = |label: &str| project.effai(&["run", label, "3 and 3 are ", "--max-tokens", "4"]);
    assert_eq!(ask("q").stdout, ask("m").stdout);
}

#[test]
fn what_cannot_be_is_one_error() {
    let fails = |targets: &str| -> String {
        let project = project(targets);
        let run = project.effai(&["build"]);
        assert_ne!(run.code, 0);
        assert!(!project.path("out/q").exists());
        run.stderr
    };
    let said = fails("quantized \"q\" { from \"m\"; method \"gptq\" bits=4; }");
    assert!(said.contains("the method `gptq` needs `calibrate`"), "{said}");
    let said =
        fails("quantized \"q\" { from \"m\"; method \"rtn\" type=\"Q8_0\"; calibrate \"d\"; backend \"candle\"; }");
    for part in [
        "the method `rtn` needs `bits`",
        "`type` means nothing to the method `rtn`",
        "`calibrate` means nothing to the method `rtn`",
        "the method `rtn` runs no model",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = fails("quantized \"q\" { from \"m\"; method \"mixed\" bits=4 per=\"channel\"; }");
    for part in [
        "`bits` means nothing to the method `mixed`",
        "`per` means nothing to the method `mixed`",
        "the method `mixed` needs `size`",
        "the method `mixed` needs `calibrate`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = fails("quantized \"q\" { from \"m\"; method \"mixed\" size=\"9 KB\"; calibrate \"d\" rows=2; }");
    assert!(said.contains("the model takes 0.") && said.contains("0.0 MB are the budget"), "{said}");
    let said = fails("quantized \"q\" { from \"m\"; method \"awq\" bits=4; calibrate \"d\" rows=100000; }");
    assert!(said.contains("and 100000 are to be read"), "{said}");
    let said = fails(
        "quantized \"b\" { from \"m\"; method \"rtn\" bits=4; }\nquantized \"q\" { from \"b\"; method \"rtn\" bits=4; }",
    );
    assert!(
        said.contains("`b` is quantized already: it is of 4 bits") && said.contains("`dequantize #true`"),
        "{said}"
    );
    let said = fails("quantized \"q\" { from \"m\"; method \"rtn\" bits=4; matrices \"*.head\" bits=8; }");
    assert!(said.contains("no matrix of `m` is called `*.head`"), "{said}");
    let said = fails("quantized \"q\" { from \"m\"; method \"int8\"; matrices \"*\" bits=8; }");
    assert!(said.contains("`matrices` means nothing to the method `int8`"), "{said}");
    let said = fails("quantized \"q\" { from \"m\"; method \"rtn\" bits=4; keep \"*\"; }");
    assert!(said.contains("no matrix of `m` is packed"), "{said}");
    let said = fails("quantized \"q\" { from \"m\"; method \"rtn\" bits=5; }");
    assert!(said.contains("5 bits are not supported") && said.contains("use 2, 3, 4, 6 or 8"), "{said}");
    let said = fails("quantized \"q\" { from \"m\"; method \"gptq\" bits=4; calibrate \"d\" split=\"tests\"; }");
    assert!(said.contains("has no split `tests`"), "{said}");

    let broken = project("quantized \"q\" { from \"m\"; method \"rtn\" bits=4 group=32; }");
    let mut tiny = Tiny::of(json!(Tiny::llama().config));
    let name = "model.layers.1.mlp.down_proj.weight";
    let mut values = tiny.arrays[name].floats().to_vec();
    values[37] = f32::NAN;
    let shape = tiny.arrays[name].shape.clone();
    tiny.arrays.insert(name.into(), effai::backend::arrays::Array::f32(&shape, values));
    tiny.pack(&broken, "tiny.zip", &[]);
    let run = broken.effai(&["build", "q"]);
    assert!(run.stderr.contains(&format!("`{name}` holds NaN in row 1, column 5")), "{}", run.stderr);
    assert!(!broken.path("out/q").exists());
}
