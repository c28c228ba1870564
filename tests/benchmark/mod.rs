//! Programs and models that are timed beside one another, and beside a baseline. How long they take is not looked at: the machine
//! may be busy, which is then said.

pub(crate) mod models;

use serde_json::{Value, json};

use crate::support::{Project, Run};

/// Two subjects, and more fields.
pub(crate) fn recipe(more: &str) -> String {
    format!(
        "benchmark \"reports/sleep\" {{\n    subject \"true\" {{ run \"true\"; }}\n    subject \"count\" {{ run \"sh\" \"-c\" \"cat \
         words.txt; test -f words.txt\"; }}\n    input \"words.txt\"\n    rounds min=3 max=4\n{more}}}\n"
    )
}

pub(crate) fn project(more: &str) -> Project {
    let project = Project::new(&recipe(more));
    project.write("words.txt", "a\nb\n");
    project
}

/// A baseline in which every run took so many seconds, on a machine as quiet and as quick as it is now.
pub(crate) fn baseline(seconds: f64, machine: &str, names: &[&str]) -> String {
    let times = vec![seconds; 5];
    let subject = |name: &&str| json!({ "name": name, "run": ["x"], "wall_s": times, "cpu_s": times, "peak_bytes": [1, 1, 1, 1, 1] });
    let noise = json!({ "others_cores": null, "stolen_cores": null, "waiting": null, "mhz": null, "throttled": null,
                        "put_aside": null, "energy_j": null });
    let kept = json!({
        "version": 2, "label": "reports/sleep", "machine": machine, "warm_up": 10, "is_steady": true, "noise": noise, "busy": [],
        "subjects": names.iter().map(subject).collect::<Vec<_>>(), "probe": { "steps": 600_000, "seconds": [1e-3, 1e-3] },
    });
    kept.to_string()
}

fn here() -> String {
    effai::util::machine::identity()
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in:\n{text}"));
}

fn build(project: &Project) -> Run {
    project.effai(&["build", "reports/sleep"])
}

#[test]
fn programs_are_timed_round_by_round() {
    let project = project("");
    let run = build(&project);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let out = |name: &str| project.read(&format!("out/reports/sleep/{name}"));
    let report: Value = serde_json::from_str(&out("report.json")).expect("JSON");
    assert_eq!((&report["version"], &report["of"]), (&json!(11), &json!("timing")));
    let rows = &report["timing"]["rows"];
    assert_eq!((&rows[0]["subject"], &rows[1]["rounds"]), (&json!("true"), &json!(4)));
    assert!(rows[1]["ratio"]["value"].as_f64().expect("a ratio") > 0.0 && rows[1]["p95_s"].is_null());
    let kept: Value = serde_json::from_str(&out("benchmark.json")).expect("JSON");
    for subject in kept["subjects"].as_array().expect("a list") {
        for field in ["wall_s", "cpu_s", "peak_bytes"] {
            assert_eq!(subject[field].as_array().expect("a list").len(), 4, "{field}");
        }
    }
    // At the begin, at the end, and between where rounds took long.
    assert!((2..=5).contains(&kept["probe"]["seconds"].as_array().expect("a list").len()));
    contains(&out("report.md"), &["# reports/sleep", "| subject | median, ", "| by true |", "probe of fixed work"]);
    contains(&out("report.csv"), &["\ntrue,,,p50_s,", "\ncount,,,ratio,"]);
    contains(&out("report.html"), &["id=\"rounds\"", "id=\"machine\"", "<polyline"]);
    for plot in ["times", "rounds", "course"] {
        assert!(project.read_bytes(&format!("out/reports/sleep/plots/{plot}.png")).starts_with(b"\x89PNG"));
        contains(&out(&format!("plots/{plot}.svg")), &["<svg "]);
    }
    contains(&project.effai(&["log", "reports/sleep"]).stdout, &["count.p50_s"]);
    assert!(project.builds(&["reports/sleep"]).is_empty(), "it is measured once");
}

#[test]
fn its_own_benchmark_is_its_baseline() {
    let project = project("");
    assert_eq!(build(&project).code, 0);
    project.write("b.json", &project.read("out/reports/sleep/benchmark.json"));
    project.write("effai.kdl", &recipe("    baseline \"b.json\" slowdown=99.0\n"));
    let run = build(&project);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let report: Value = serde_json::from_str(&project.read("out/reports/sleep/report.json")).expect("JSON");
    assert_eq!(report["timing"]["against"]["rows"].as_array().expect("a list").len(), 2);
    contains(&project.read("out/reports/sleep/report.html"), &["id=\"baseline\"", "now by baseline"]);
}

#[test]
fn what_became_slower_fails_unless_the_machine_was_busy() {
    let project = project("    baseline \"b.json\"\n");
    // The probe as it is here: its pace is not what differs.
    assert_eq!(build_without_baseline(&project), 0);
    let kept: Value = serde_json::from_str(&project.read("out/reports/sleep/benchmark.json")).expect("JSON");
    let mut then: Value = serde_json::from_str(&baseline(1e-9, &here(), &["true", "count"])).expect("JSON");
    then["probe"] = kept["probe"].clone();
    project.write("b.json", &then.to_string());
    project.write("effai.kdl", &recipe("    baseline \"b.json\"\n"));
    let run = build(&project);
    if run.code == 0 {
        contains(&run.stderr, &["warning reports/sleep: not held against the baseline: "]);
        return;
    }
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(
        &run.stderr,
        &["true takes ", "times as long as the baseline, and 2 % more is allowed", "to accept it: cp "],
    );
    // The command that it names is one that works.
    let (from, to) =
        run.stderr.split_once("cp ").and_then(|(_, rest)| rest.lines().next()?.split_once(' ')).expect("a command");
    let to = project.path(to);
    std::fs::copy(from, to).expect("it is there");
}

fn build_without_baseline(project: &Project) -> i32 {
    project.write("effai.kdl", &recipe(""));
    build(project).code
}

#[test]
fn a_baseline_that_does_not_fit_is_one_error_before_anything_runs() {
    let fails = |text: &str, parts: &[&str]| {
        let project = project("    baseline \"b.json\"\n");
        project.write("b.json", text);
        let run = build(&project);
        assert_eq!(run.code, 2, "{}", run.stderr);
        contains(&run.stderr, parts);
        contains(&run.stderr, &["help:"]);
    };
    fails(
        &baseline(1.0, "another", &["true", "count"]),
        &["the baseline b.json is of another machine: another; this one is"],
    );
    fails(&baseline(1.0, &here(), &["true"]), &["the baseline b.json has no subject `count`", "it has `true`"]);
    fails(&baseline(1.0, &here(), &["true"]).replacen("\"version\":2", "\"version\":1", 1), &["is of version 1"]);
    fails("{\"version\":2", &["the baseline b.json is damaged: EOF"]);
    let run = build(&project("    baseline \"b.json\"\n"));
    assert_ne!(run.code, 0);
    contains(&run.stderr, &["b.json"]);
}

#[test]
fn a_program_that_fails_shows_what_it_said() {
    let project = Project::new(
        "benchmark \"b\" {\n    subject \"bad\" { run \"sh\" \"-c\" \"echo it broke >&2; exit 3\"; }\n}\n",
    );
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(&run.stderr, &["b: subject `bad`: `sh` failed (exit status: 3):\n  it broke"]);
    project.edit("effai.kdl", "\"sh\" \"-c\"", "\"no-such-program\" \"-c\"");
    let run = project.effai(&["build"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    contains(&run.stderr, &["subject `bad`: `no-such-program` is not installed"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_subject_is_held_to_what_was_declared() {
    let project = project("");
    project.edit("effai.kdl", "cat words.txt; ", "cat secret.txt || exit 1; ");
    project.write("secret.txt", "x\n");
    let run = build(&project);
    assert_eq!(run.code, 1, "{}", run.stderr);
    contains(
        &run.stderr,
        &["secret.txt", "a program is given only what its target declares; add to the target: input \"secret.txt\""],
    );
    if !project.effai(&["doctor"]).stdout.contains("nothing checks") {
        let by_path = format!("cat {} || exit 1; ", project.path("secret.txt").display());
        project.edit("effai.kdl", "cat secret.txt || exit 1; ", &by_path);
        assert_eq!(build(&project).code, 1, "it is not read by its whole path either");
    }
}
