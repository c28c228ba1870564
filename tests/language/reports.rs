//! Reports of language models: before and after.

use serde_json::Value;

use super::project;
use crate::support::Project;
use crate::support::tiny::Tiny;

/// The project, its adapter taught long enough, and a report with these fields.
fn reported(fields: &str) -> Project {
    let project = project(r#""lora" rank=4"#, "steps 40");
    let report = format!("report \"r\" {{ {fields} }}\n");
    project.write("effai.kdl", &format!("{}{report}", project.read("effai.kdl")));
    project
}

const WHOLE: &str = r#"compare "m" "a"; on "d" split="train"; on "d" split="validation"; metrics "perplexity"; ask "3 and 3 are "; ask "what?"; max-tokens 5; seed 7"#;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn a_report_says_what_was_learnt() {
    let project = reported(WHOLE);
    project.builds(&["r", "a"]);
    let json = |path: &str| -> Value { serde_json::from_str(&project.read(path)).expect("JSON") };
    let report = json("out/r/report.json");
    assert_eq!((&report["version"], &report["of"]), (&8.into(), &"language".into()));
    let rows = &report["texts"][0]["rows"];
    let (before, after) = (&rows[0], &rows[1]);
    assert!(before["ratio"].is_null() && before["difference"].is_null());
    let ratio = &after["ratio"];
    let divided = number(&after["perplexity"]["value"]) / number(&before["perplexity"]["value"]);
    assert!((number(&ratio["value"]) - divided).abs() < 1e-9, "{ratio}");
    assert!(
        number(&ratio["low"]) < divided && divided < number(&ratio["high"]) && number(&ratio["high"]) < 1.0,
        "{ratio}"
    );
    assert_eq!(after["difference"]["stands_out"], true);
    let said = report["headline"][0].as_str().expect("words");
    assert!(said.starts_with("On \u{201c}d, train\u{201d} perplexity falls from "), "{said}");
    let size = |name: &str| std::fs::metadata(project.path(name)).expect("there").len();
    assert_eq!(report["subjects"][1]["own_bytes"], size("out/a/adapter_model.safetensors"));
    assert_eq!(report["subjects"][1]["base"], "m");
    assert_eq!(report["texts"][1]["records"], 4);
    assert_eq!(report["answers"].as_array().expect("answers").len(), 2);
    let answer = &report["answers"][0]["answers"][1];
    let asked = project.effai(&["run", "a", "3 and 3 are ", "--max-tokens", "5"]).stdout;
    assert_eq!(answer["text"].as_str().expect("text").trim_end(), asked.trim_end());
    assert!(project.read("out/r/report.csv").lines().any(|l| l.starts_with("a,\"d, train\",,perplexity-ratio,0.")));
    assert!(project.read("out/r/report.md").contains("## Perplexity: d, validation (n = 4 records, "));
    let page = project.read("out/r/report.html");
    for section in ["perplexity", "answers", "size", "training"] {
        assert!(page.contains(&format!("<section id=\"{section}\">")), "no {section}");
    }
    assert!(page.contains("m, learning rate") || page.contains("a, learning rate"));
    for plot in ["perplexity", "records", "training"] {
        assert!(size(&format!("out/r/plots/{plot}.png")) > 1000 && size(&format!("out/r/plots/{plot}.svg")) > 1000);
    }
    assert!(project.builds(&["r"]).is_empty());
    project.edit("effai.kdl", "seed 7", "seed 8");
    assert_eq!(project.builds(&["r"]), ["r"], "the models are not looked at again");
    let other = json("out/r/report.json");
    let row = &other["texts"][0]["rows"][1];
    assert_eq!(row["perplexity"]["value"], after["perplexity"]["value"]);
    assert_ne!(row["perplexity"]["low"], after["perplexity"]["low"]);
}

#[test]
fn one_model_is_not_held_against_another() {
    let project = reported(r#"compare "m"; on "d" split="train"; metrics "perplexity""#);
    project.builds(&["r"]);
    let report: Value = serde_json::from_str(&project.read("out/r/report.json")).expect("JSON");
    assert!(report["headline"][0].as_str().expect("words").contains("the perplexity of m is "), "{report}");
    assert!(report.get("answers").is_none() && report["texts"][0]["rows"][0]["ratio"].is_null());
    assert!(!project.path("out/r/plots/training.svg").exists(), "it was not trained here");
}

#[test]
fn a_report_without_an_interval_or_a_common_measure_is_none() {
    let fails = |edit: &dyn Fn(&Project)| -> String {
        let project = reported(r#"compare "m" "a"; on "d" split="validation"; metrics "perplexity""#);
        edit(&project);
        let run = project.effai(&["build", "r"]);
        assert!(run.code != 0 && !project.path("out/r").exists(), "{}", run.stderr);
        run.stderr
    };
    let said = fails(&|p| p.edit("effai.kdl", "on \"d\" split=\"validation\"", "on \"d\" split=\"test\""));
    assert!(said.contains("`test`"), "{said}");
    let said = fails(&|p| {
        let other = r#"model "n" { source path="tiny.zip" { weights "model.safetensors"; config "other.json"; tokenizer "tokenizer.json"; }; architecture "llama"; }"#;
        p.write(
            "effai.kdl",
            &format!("{}{other}\n", p.read("effai.kdl").replace("compare \"m\" \"a\"", "compare \"m\" \"n\"")),
        );
        let mut other = Tiny::llama().config;
        other["max_position_embeddings"] = 15.into();
        Tiny::llama().pack(p, "tiny.zip", &[("other.json", &other.to_string())]);
    });
    assert!(said.contains("m and n cut the texts of d into other tokens"), "{said}");
}

#[test]
fn models_of_the_other_sort_are_one_error() {
    let fails = |fields: &str| -> String {
        let project = reported(fields);
        let run = project.effai(&["build", "r"]);
        assert!(run.code != 0 && !run.stderr.contains("panicked"), "{}", run.stderr);
        run.stderr
    };
    let said = fails(r#"compare "m"; test "t" on="d" split="train""#);
    assert!(said.contains("a language model gives no vector of a text"), "{said}");
}

/// A report of these fields is refused at its line, with each of the texts.
pub(super) fn refuses(fields: &str, expected: &[&str]) {
    let project = Project::new(&format!("report \"r\" {{ {fields} }}\n"));
    let run = project.effai(&["check"]);
    assert_eq!(run.code, 2, "{fields}: {}", run.stderr);
    for text in expected {
        assert!(run.stderr.contains(text), "no {text:?} in:\n{}", run.stderr);
    }
    assert!(run.stderr.contains("effai.kdl:1"), "{}", run.stderr);
}

#[test]
fn what_a_report_cannot_be_asked_is_shown_in_the_recipe() {
    let check = |fields: &str, expected: &[&str]| refuses(&format!("compare \"m\"; {fields}"), expected);
    let on = "on \"d\" split=\"test\"";
    check(&format!("{on}; metrics \"recall@1\""), &["\"recall@1\"", "\"perplexity\""]);
    check(&format!("{on}; ask \"what?\""), &["`ask` needs `metrics`", "add `metrics \"perplexity\"`"]);
    check(on, &["`on` needs `metrics`"]);
    check("metrics \"perplexity\"", &["`metrics` needs `on`"]);
    check("ask \"what?\"", &["`ask` needs `on`"]);
    check(&format!("{on}; metrics \"perplexity\"; max-tokens 5"), &["`max-tokens` needs `ask`"]);
    check(&format!("{on}; metrics \"perplexity\"; rounds 5"), &["`rounds` is of speed, which this report has not"]);
    check(&format!("{on}; {on} max-length=9; metrics \"perplexity\""), &["the split `test` of `d` is there twice"]);
    check("", &["nothing is measured: `test`, `on`, `number` or `predictions` is missing"]);
    let test = "test \"t\" on=\"d\" split=\"test\"";
    check(
        &format!("{test}; ask \"what?\""),
        &["`ask` is of language models and encoders, and `test` of picture-text models"],
    );
    check("zero-shot \"c\" on=\"d\" split=\"test\" { prompt \"{}\"; }", &["`zero-shot` needs a `test`"]);
}
