//! What holds on each backend that is in this build.

use effai::backend::rng::Rng;
use serde_json::Value;
#[cfg(target_os = "linux")]
use serde_json::json;

use super::{project, weights};
use crate::support::Project;
#[cfg(target_os = "linux")]
use crate::support::{Run, tiny::Tiny};

const BACKENDS: &[&str] = if cfg!(feature = "mlx") { &["candle", "mlx"] } else { &["candle"] };

fn builds(project: &Project, backend: &str, more: &[&str]) {
    let run = project.effai(&[&["build", "a", "--backend", backend], more].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
}

/// What the actions of a build say computes.
fn who_computes(project: &Project, args: &[&str]) -> Vec<String> {
    let run = project.effai(&[&["build", "--json"], args].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    let events = run.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events
        .filter(|event| event["what"]["event"] == "backend")
        .map(|event| event["what"]["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn each_repeats_itself_and_they_agree() {
    let curve = |project: &Project| -> Vec<f64> {
        let curves: Value = serde_json::from_str(&project.read("out/a/training.json")).expect("JSON");
        let points =
            curves["train"].as_array().expect("steps").iter().chain(curves["validation"].as_array().expect("some"));
        points.map(|p| p[1].as_f64().expect("a loss")).collect()
    };
    let mut curves = Vec::new();
    for backend in BACKENDS {
        let [first, second, third] = ["1", "2", "4"].map(|threads| {
            let project = project(r#""lora" rank=2 dropout=0.1"#, "steps 8");
            builds(&project, backend, &["-j", threads]);
            project
        });
        assert_eq!(weights(&first), weights(&second), "{backend}");
        assert_eq!(weights(&first), weights(&third), "{backend}");
        curves.push(curve(&first));
    }
    for other in &curves[1..] {
        for (candle, mlx) in curves[0].iter().zip(other) {
            assert!((candle - mlx).abs() < 1e-4, "as docs/backends.md states: {candle} {mlx}");
        }
    }
}

#[test]
fn killed_at_any_step_it_ends_in_the_same_bytes() {
    for backend in BACKENDS {
        let begun = || project(r#""lora" rank=2"#, "steps 12; checkpoint-every 3");
        let clean = begun();
        builds(&clean, backend, &[]);
        let mut rng = Rng::new(11, backend);
        for _ in 0..20 {
            let project = begun();
            let step = 1 + rng.below(12);
            assert!(project.killed_at(&["build", "a", "--json", "--backend", backend], &format!("\"step\":{step},")));
            builds(&project, backend, &[]);
            assert_eq!(weights(&project), weights(&clean), "{backend}, killed at step {step}");
        }
    }
}

/// Short records and a few long ones, and a model so wide that a long one takes several times the memory.
#[cfg(target_os = "linux")]
fn uneven() -> Project {
    let project = project(r#""lora" rank=2"#, "steps 10; checkpoint-every 2");
    let mut wide = Tiny::llama().config;
    wide["intermediate_size"] = 12_000.into();
    Tiny::of(wide).pack(&project, "tiny.zip", &[]);
    project.edit("effai.kdl", "batch 4", "batch 1");
    project.edit("effai.kdl", "evaluate-every 2", "evaluate-every 0");
    let text = |i: usize| if i % 5 == 4 { "and so on ".repeat(5) } else { "so".to_owned() };
    let line = |i: usize| json!({"p": format!("{i} "), "c": text(i)}).to_string();
    project.write("words.jsonl", &(0..20).map(line).collect::<Vec<_>>().join("\n"));
    project
}

#[cfg(target_os = "linux")]
#[test]
fn ended_by_the_systems_memory_limit_it_goes_on_and_ends_in_the_same_bytes() {
    // OpenBLAS under MLX asks for its memory again and again where there is none: such a process does not end.
    ended_by_memory("candle", 3, "memory ran out", |project, kib| {
        project.effai_within(kib, &["build", "a", "--backend", "candle"])
    });
}

#[cfg(target_os = "linux")]
#[test]
fn ended_by_its_own_memory_limit_it_goes_on_and_ends_in_the_same_bytes() {
    for backend in BACKENDS {
        ended_by_memory(backend, 1, "it held more memory than", |project, kib| {
            project.edit("effai.kdl", "base \"m\"", &format!("at-most memory=\"{kib} K\"; base \"m\""));
            let run = project.effai(&["build", "a", "--backend", backend]);
            project.edit("effai.kdl", &format!("at-most memory=\"{kib} K\"; "), "");
            Some(run)
        });
    }
}

/// Builds with limits until one lets some of the steps be done and not all.
#[cfg(target_os = "linux")]
fn ended_by_memory(backend: &str, code: i32, said: &str, within: impl Fn(&Project, u64) -> Option<Run>) {
    let clean = uneven();
    builds(&clean, backend, &[]);
    // Between what is too little to begin with and what is enough, in KiB.
    const ALL: (u64, u64) = (50_000, 2_000_000);
    let ((mut low, mut high), mut tries) = (ALL, 1);
    loop {
        if high - low <= 2_000 {
            // What a process holds before its first step is not the same each time: one that held more misled the search.
            assert!(tries < 4, "with {low} KiB no step is done, with {high} all are");
            ((low, high), tries) = (ALL, tries + 1);
        }
        let project = uneven();
        // What the training stands on is there.
        assert_eq!(project.effai(&["build", "m", "d"]).code, 0);
        let kib = (low + high) / 2;
        let Some(run) = within(&project, kib) else {
            low = kib;
            continue;
        };
        if run.code == 0 {
            assert_eq!(weights(&project), weights(&clean), "with {kib} KiB");
            high = kib;
            continue;
        }
        if !run.stderr.lines().any(|line| line.starts_with("built") && line.contains(" a:")) {
            low = kib;
            continue;
        }
        assert_eq!(run.code, code, "{}", run.stderr);
        assert!(run.stderr.contains(said), "{}", run.stderr);
        assert!(!project.path("out/a").exists());
        builds(&project, backend, &[]);
        assert_eq!(weights(&project), weights(&clean), "ended with {kib} KiB");
        break;
    }
}

#[test]
fn who_computed_is_no_fact() {
    let project = project(r#""lora" rank=2"#, "steps 2");
    let last = BACKENDS[BACKENDS.len() - 1];
    assert_eq!(who_computes(&project, &["a", "--backend", last]), [last]);
    for backend in BACKENDS {
        assert_eq!(who_computes(&project, &["a", "--backend", backend]), [""; 0], "it is there");
    }
}

#[test]
fn a_recipe_may_insist() {
    let project = project(r#""lora" rank=2"#, "steps 2");
    project.edit("effai.kdl", "base \"m\"", "base \"m\"; backend \"candle\"");
    let last = BACKENDS[BACKENDS.len() - 1];
    assert_eq!(who_computes(&project, &["a", "--backend", last]), ["candle"]);
    project.edit("effai.kdl", "backend \"candle\"", "backend \"mlx\"");
    if cfg!(feature = "mlx") {
        assert_eq!(who_computes(&project, &["a"]), ["mlx"]);
        return;
    }
    let run = project.effai(&["build", "a"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("this effai was built without MLX"), "{}", run.stderr);
    let run = project.effai(&["build", "a", "--backend", "mlx"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("build it with `--features mlx`"), "{}", run.stderr);
}

#[test]
fn the_doctor_tells_what_there_is() {
    let project = Project::new("");
    let run = project.effai(&["doctor", "--json"]);
    let found: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(run.code, 0, "{}", run.stderr);
    for backend in found["backends"].as_array().expect("a list") {
        let works = BACKENDS.contains(&backend["name"].as_str().expect("a name"));
        assert_eq!(backend["works"], works, "{backend}");
        assert_eq!(backend["next"].is_null(), works, "what to do for more: {backend}");
    }
    assert!(found["machine"]["cores"].as_u64().expect("a number") > 0);
    assert!(project.effai(&["doctor"]).stdout.contains("\nchosen "));
}
