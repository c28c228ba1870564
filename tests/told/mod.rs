//! Numbers that programs tell: kept with the artifact, and reported of several targets.

use serde_json::{Value, json};

use crate::support::Project;

/// A target that tells these numbers, each NAME, NAME@STEP or so, with its value.
fn tells(label: &str, numbers: &[(&str, f64)]) -> String {
    let lines = numbers.iter().map(|(name, value)| {
        let (name, step) = name
            .split_once('@')
            .map_or((*name, Value::Null), |(name, step)| (name, step.parse::<u64>().expect("a step").into()));
        format!("echo '{}'\n", json!({ "event": "metric", "name": name, "step": step, "value": value }))
    });
    let script: String = lines.collect();
    format!(
        "command \"{label}\" {{\n    run \"sh\" \"-c\" #\"\"\"\n{{\n{script}}} >&\"$EFFAI_EVENTS\"\ntouch o\n\"\"\"#\n    \
         output \"o\"\n    metrics \"metrics.json\"\n}}\n"
    )
}

const MLP: &[(&str, f64)] =
    &[("train.loss@0", 0.9), ("train.loss@2", 0.2), ("accuracy", 0.951), ("train.loss@1", 0.15)];
const FOREST: &[(&str, f64)] = &[("accuracy", 0.5), ("accuracy", 0.9722)];

fn digits(report: &str) -> Project {
    Project::new(&[tells("models/mlp", MLP), tells("models/forest", FOREST), report.to_owned()].concat())
}

const REPORT: &str = r#"
report "reports/digits" {
    compare "models/mlp" "models/forest"
    number "accuracy" better="higher"
    number "train.loss" better="lower"
}
"#;

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in:\n{text}"));
}

#[test]
fn told_numbers_are_a_file_of_the_artifact() {
    let project = digits("");
    project.builds(&["-j", "1"]);
    let kept: Value = serde_json::from_str(&project.read("out/models/mlp/metrics.json")).expect("JSON");
    let expected = json!({
        "version": 1,
        "values": { "accuracy": 0.951, "train.loss": 0.2 },
        "curves": { "train.loss": [[0, 0.9], [1, 0.15], [2, 0.2]] },
    });
    assert_eq!(kept, expected);
    let kept: Value = serde_json::from_str(&project.read("out/models/forest/metrics.json")).expect("JSON");
    assert_eq!(kept, json!({ "version": 1, "values": { "accuracy": 0.9722 }, "curves": {} }));
    assert!(project.builds(&[]).is_empty());
    let check = project.effai(&["build", "--check"]);
    assert_eq!(check.code, 0, "{}", check.stderr);
}

#[test]
fn a_program_that_tells_nothing_is_told_of() {
    let project = Project::new("command \"m\" { run \"touch\" \"o\"; output \"o\"; metrics \"kept/numbers.json\"; }\n");
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    contains(&run.stderr, &["warning m: the command told no numbers: kept/numbers.json has none"]);
    contains(&project.read("out/m/kept/numbers.json"), &["\"values\": {}"]);
}

#[test]
fn numbers_of_targets_stand_side_by_side() {
    let project = digits(REPORT);
    assert_eq!(project.builds(&["reports/digits", "-j", "1"]), ["models/mlp", "models/forest", "reports/digits"]);
    let out = "out/reports/digits";
    let report: Value = serde_json::from_str(&project.read(&format!("{out}/report.json"))).expect("JSON");
    assert_eq!((&report["version"], &report["of"]), (&json!(6), &json!("told")));
    assert_eq!(
        report["headline"],
        json!(["accuracy: forest is best with 0.9722; mlp has 0.9510.", "forest told no train.loss."])
    );
    let loss = &report["told"][1];
    assert_eq!(loss["better"], "lower");
    assert_eq!(loss["rows"][0]["curve"], json!([[0, 0.9], [1, 0.15], [2, 0.2]]));
    assert_eq!(loss["rows"][1], json!({ "subject": "models/forest", "value": null }));
    let md = project.read(&format!("{out}/report.md"));
    contains(
        &md,
        &["| models/mlp | 0.9510 | 0.2000 (best 0.1500 at 1) |", "| models/forest | **0.9722** | – (not told) |"],
    );
    contains(&project.read(&format!("{out}/report.csv")), &["models/mlp,,,train.loss,0.2,,,3,,,,\n"]);
    contains(&project.read(&format!("{out}/report.html")), &["id=\"curves\"", "not told", "<polyline"]);
    for plot in ["values", "curves"] {
        assert!(project.read_bytes(&format!("{out}/plots/{plot}.png")).starts_with(b"\x89PNG"));
    }
    let log = project.effai(&["log", "reports/digits"]).stdout;
    contains(&log, &["models/forest.accuracy 0.9722"]);

    // Another program that tells the same numbers stops the wave.
    project.edit("effai.kdl", "touch o", "echo > o");
    assert_eq!(project.builds(&["reports/digits", "-j", "1"]).len(), 3, "other outputs are other artifacts");
    project.edit("effai.kdl", "0.9722", "0.94");
    assert_eq!(project.builds(&["reports/digits", "-j", "1"]), ["models/forest", "reports/digits"]);
    contains(&project.read(&format!("{out}/report.md")), &["- accuracy: mlp is best with 0.9510; forest has 0.9400."]);
}

#[test]
fn what_no_target_told_is_one_error() {
    let fails = |project: &Project, code: i32, parts: &[&str]| {
        let run = project.effai(&["build", "reports/digits"]);
        assert_eq!(run.code, code, "{}", run.stderr);
        contains(&run.stderr, parts);
    };
    let project = digits(&REPORT.replace("\"accuracy\"", "\"acuracy\""));
    fails(&project, 2, &["none of the targets told a number `acuracy`", "they told `accuracy` and `train.loss`"]);
    let project = digits(&REPORT.replace("better=\"higher\"", "in=\"m.json\""));
    fails(&project, 2, &["models/mlp has no m.json: it keeps no numbers there", "metrics \"m.json\""]);
    let twice = REPORT.replace("\"train.loss\"", "\"accuracy\"");
    fails(&digits(&twice), 2, &["the number `accuracy` is there twice"]);
    let both = REPORT.replace("number \"accuracy\"", "ask \"what?\"; number \"accuracy\"");
    fails(&digits(&both), 2, &["`ask` is of models that are measured, and `number` of what programs told"]);
}

#[test]
fn two_numbers_against_each_other_are_a_front() {
    let costs = |label: &str, size: f64, error: f64| tells(label, &[("MB", size), ("error", error)]);
    let targets = [costs("a", 90.0, 0.0), costs("b", 22.0, 0.002), costs("c", 23.0, 0.003), tells("d", &[("MB", 1.0)])];
    let report = |front: &str| {
        let report = format!(
            "report \"r\" {{ compare \"a\" \"b\" \"c\" \"d\"; number \"MB\" better=\"lower\"; \
             number \"error\" better=\"lower\"; front {front}; }}"
        );
        Project::new(&[targets.concat(), report].concat())
    };
    let project = report("\"MB\" against=\"error\"");
    project.builds(&["r", "-j", "2"]);
    let found: Value = serde_json::from_str(&project.read("out/r/report.json")).expect("JSON");
    assert_eq!(found["fronts"], json!([{ "across": "MB", "up": "error", "unbeaten": ["b", "a"] }]));
    let said = "MB against error: no other is below b or a in both.";
    assert_eq!(found["headline"][2], said);
    contains(&project.read("out/r/report.html"), &["<h2>MB against error</h2>", said]);
    contains(&project.read("out/r/plots/front.svg"), &["MB against error"]);
    // A cost or an error is above 0.
    let project = report("\"MB\" against=\"error\"");
    project.write("effai.kdl", &project.read("effai.kdl").replace("0.003", "-0.003"));
    let failed = project.effai(&["build", "r"]);
    assert_eq!(failed.code, 2);
    contains(&failed.stderr, &["`error` of `c` is -0.003, and a front has none below 0"]);
}
