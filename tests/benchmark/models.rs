//! Models that are timed: what they are asked to do, by which backend, beside programs and beside a baseline.

use serde_json::{Value, json};

use super::contains;
use crate::clip;
use crate::support::Project;
use crate::support::tiny::{MODEL, Tiny};

const BACKENDS: &str = if cfg!(feature = "mlx") { "\"candle\" \"mlx\"" } else { "\"candle\"" };

/// A benchmark of a model and of what was made of it.
fn recipe(made: &str, more: &str) -> String {
    format!(
        "{made}benchmark \"reports/tiny\" {{\n    subject \"whole\" model=\"m\"\n    subject \"small\" model=\"q\"\n    rounds min=3 \
         max=3\n    {more}\n}}\n"
    )
}

/// A language model that reads 64 tokens, its rounding, and a benchmark of both with these fields besides.
pub(crate) fn language(more: &str) -> Project {
    let rounded = "quantized \"q\" { from \"m\"; method \"rtn\" bits=8 group=32; }\n";
    let project = Project::new(&recipe(&format!("{MODEL}\n{rounded}"), more));
    let mut wide = Tiny::llama().config;
    for (name, value) in [("hidden_size", 64), ("intermediate_size", 128)] {
        wide[name] = value.into();
    }
    Tiny::of(wide).pack(&project, "tiny.zip", &[]);
    project
}

/// Likewise of an encoder of texts.
pub(crate) fn encoder(more: &str) -> Project {
    let model = MODEL.replace("llama", "bert");
    let project =
        Project::new(&recipe(&format!("{model}\nquantized \"q\" {{ from \"m\"; method \"int8\"; }}\n"), more));
    let mut wide = Tiny::bert().config;
    for (name, value) in [("hidden_size", 64), ("intermediate_size", 128)] {
        wide[name] = value.into();
    }
    Tiny::of(wide).pack(&project, "tiny.zip", &[]);
    project
}

/// Likewise of one that sees as well.
pub(crate) fn sees(more: &str) -> Project {
    clip::with_targets(&recipe("quantized \"q\" { from \"m\"; method \"rtn\" bits=8 group=32; }\n", more))
}

fn built(project: &Project) -> Value {
    let run = project.effai(&["build", "reports/tiny"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    json(project, "report.json")
}

fn json(project: &Project, name: &str) -> Value {
    serde_json::from_str(&project.read(&format!("out/reports/tiny/{name}"))).expect("JSON")
}

/// Of each row: its workload, its backend and its subject.
fn rows(report: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let row = |row: &Value| {
        let model = &row["model"];
        format!("{} {} {}", text(&model["workload"]["name"]), text(&model["backend"]), text(&row["subject"]))
    };
    report["timing"]["rows"].as_array().expect("rows").iter().map(row).collect()
}

#[test]
fn language_models_take_turns_on_every_backend() {
    let more = format!(
        "subject \"program\" {{ run \"true\"; }}\n    workload \"chat\" prompt=16 generate=4\n    workload \"read\" prompt=40\n    \
         workload \"warm\" load=\"warm\"\n    backend {BACKENDS}"
    );
    let project = language(&more);
    let report = built(&project);
    let backends: Vec<&str> = BACKENDS.split('"').filter(|name| !name.trim().is_empty()).collect();
    let mut expected = vec!["- - program".to_owned()];
    for workload in ["chat", "read", "warm"] {
        for backend in &backends {
            expected.extend(["whole", "small"].map(|subject| format!("{workload} {backend} {subject}")));
        }
    }
    assert_eq!(rows(&report), expected);

    let row = |name: &str| {
        let at = expected.iter().position(|row| row == name).expect("a row");
        &report["timing"]["rows"][at]
    };
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {value}"));
    for name in ["chat candle whole", "chat candle small"] {
        let row = row(name);
        assert_eq!(row["rates"].as_array().map(Vec::len), Some(2), "{row}");
        let (first, whole) = (number(&row["first_s"]["value"]), number(&row["max_s"]));
        assert!(0.0 < first && first < whole && number(&row["rates"][1]["per_s"]["value"]) > 0.0, "{row}");
        let memory = &row["model"]["memory"];
        assert_eq!(memory["token_bytes"], 2 * 2 * 2 * 16 * 4, "two layers, keys and values, two heads of 16");
        if cfg!(target_os = "linux") {
            let bytes = ["weight_bytes", "resident_bytes", "peak_bytes"].map(|name| number(&memory[name]));
            assert!(0.0 < bytes[0] && bytes[0] < bytes[1] && bytes[1] <= bytes[2], "{memory}");
        }
    }
    let weights = |name: &str| number(&row(name)["model"]["memory"]["weight_bytes"]);
    assert!(weights("chat candle small") < weights("chat candle whole"));
    assert_eq!(row("read candle whole")["rates"].as_array().map(Vec::len), Some(1));
    assert!(row("warm candle whole")["rates"].is_null() && row("warm candle whole")["model"]["memory"].is_null());
    assert!(row("chat candle whole")["ratio"].is_null() && number(&row("chat candle small")["ratio"]["value"]) > 0.0);
    if backends.len() > 1 {
        assert!(row("chat mlx whole")["ratio"].is_null());
        assert!(number(&row("chat mlx small")["by_backend"]["value"]) > 0.0);
    }

    let kept = json(&project, "benchmark.json");
    for subject in kept["subjects"].as_array().expect("a list") {
        assert_eq!(subject["wall_s"].as_array().map(Vec::len), Some(3), "{subject}");
        let is_timed = subject["model"]["workload"]["prompt"].is_number();
        assert_eq!(subject["first_s"].as_array().map(Vec::len), is_timed.then_some(3), "{subject}");
    }
    let out = |name: &str| project.read(&format!("out/reports/tiny/{name}"));
    contains(
        &out("report.md"),
        &["## Programs", "## chat: prompt=16 generate=4", "generated tokens/s", "## warm: load="],
    );
    contains(&out("report.html"), &["<h3>read: prompt=40</h3>", "beyond the weights"]);
    contains(&out("plots/rounds-2.svg"), &["chat: prompt=16 generate=4. Every round"]);
    let metric = if backends.len() > 1 { "small.chat.mlx.p50_s" } else { "small.chat.p50_s" };
    contains(&project.effai(&["log", "reports/tiny"]).stdout, &[metric]);
    assert!(project.builds(&["reports/tiny"]).is_empty(), "it is measured once");
    project.edit("effai.kdl", "bits=8", "bits=4");
    assert_eq!(project.builds(&["reports/tiny"]), ["q", "reports/tiny"], "what a model is, is in the key");
}

#[test]
fn encoders_do_what_is_usual_where_nothing_is_asked() {
    let report = built(&encoder(""));
    let workloads = |report: &Value| -> Vec<Value> {
        let rows = report["timing"]["rows"].as_array().expect("rows");
        rows.iter().map(|row| row["model"]["workload"].clone()).collect()
    };
    let texts = json!({"name": "texts", "texts": 16, "length": 32});
    assert_eq!(workloads(&report), [texts.clone(), texts]);
    assert_eq!(report["timing"]["rows"][0]["rates"][0]["of"], "texts");
    assert_eq!(report["timing"]["rows"][1]["model"]["memory"].get("token_bytes"), None);
    let report = built(&sees(""));
    let (texts, pictures) =
        (json!({"name": "texts", "texts": 16, "length": 8}), json!({"name": "pictures", "pictures": 16, "size": 16}));
    assert_eq!(workloads(&report), [texts.clone(), texts, pictures.clone(), pictures]);
    assert_eq!(report["timing"]["rows"][2]["rates"][0]["of"], "pictures");
}

#[test]
fn an_adapter_is_opened_with_its_base_and_a_file_is_forgotten_where_the_system_does_so() {
    let project = crate::support::tiny::project("\"lora\" rank=2 alpha=4", "steps 2; max-length 32; seed 7");
    let recipe = project.read("effai.kdl");
    project.write(
        "effai.kdl",
        &format!(
            "{recipe}benchmark \"reports/tiny\" {{ subject \"m\" model=\"m\"; subject \"a\" model=\"a\"; rounds min=3 max=3; workload \
             \"cold\" load=\"cold\"; workload \"chat\" prompt=4 generate=2; }}\n"
        ),
    );
    let report = built(&project);
    let rows = rows(&report);
    let is_left_out = report["left_out"].as_array().is_some_and(|all| !all.is_empty());
    if is_left_out {
        contains(&report["left_out"][0].to_string(), &["cold: this system does not forget files that it has read"]);
    } else {
        assert!(rows[0].starts_with("cold ") && rows[1].ends_with(" a"), "{rows:?}");
    }
    assert_eq!(rows.iter().filter(|row| row.starts_with("chat ")).count(), 2, "{rows:?}");
}

#[test]
fn a_model_has_a_baseline_of_the_same_workload() {
    let with = |more: &str| format!("workload \"chat\" prompt=8 generate=2\n    backend \"candle\"\n    {more}");
    let project = language(&with(""));
    built(&project);
    project.write("b.json", &project.read("out/reports/tiny/benchmark.json"));
    project.edit("effai.kdl", "backend \"candle\"", "backend \"candle\"; baseline \"b.json\" slowdown=99.0");
    let report = built(&project);
    let held = &report["timing"]["against"]["rows"];
    assert_eq!(
        (held[0]["subject"].as_str(), held[1]["subject"].as_str()),
        (Some("whole (chat, candle)"), Some("small (chat, candle)"))
    );
    contains(&project.read("out/reports/tiny/report.html"), &["id=\"baseline\"", "<small>chat</small>"]);
    let fails = |from: &str, to: &str, says: &[&str]| {
        project.edit("effai.kdl", from, to);
        let run = project.effai(&["build", "reports/tiny"]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        contains(&run.stderr, says);
        contains(&run.stderr, &["help: "]);
        project.edit("effai.kdl", to, from);
    };
    fails(
        "generate=2",
        "generate=3",
        &["the workload `chat` is prompt=8 generate=2, and here it is prompt=8 generate=3"],
    );
    fails("\"chat\" prompt", "\"talk\" prompt", &["the baseline b.json has no subject `whole (talk, candle)`"]);
}
