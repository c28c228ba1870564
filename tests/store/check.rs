//! `effai build --check`: what two runs make is compared.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use effai::action::{Cancel, Cost, Ended, Job, Runner};
use effai::engine::{Engine, Options};
use effai::event::{ActionEvent, Event, Repeat};
use effai::schedule::{BuildOptions, build};

use crate::support::{Project, Run};

/// A counter outside the project stands for a clock.
fn counting(project: &Project, script: &str) -> String {
    let counter = project.cache().with_file_name("counter").display().to_string();
    if !Path::new(&counter).exists() {
        std::fs::write(&counter, "0").expect("written");
    }
    let count = format!("n=$(cat {counter}); echo $((n + 1)) > {counter}; ");
    script.replace("COUNT", &count).replace("output ", &format!("untracked \"{counter}\"; output "))
}

fn recipe(project: &Project, recipe: &str) {
    project.write("effai.kdl", &counting(project, recipe));
}

fn objects(run: &Run, event: &str) -> Vec<serde_json::Value> {
    let lines = run.stdout.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"));
    lines.filter(|l| l["event"] == event).collect()
}

#[test]
fn a_command_with_a_clock_is_caught_and_one_without_is_not() {
    let project = Project::new("");
    recipe(
        &project,
        r#"
        command "clock" { run "sh" "-c" "COUNT mkdir d; echo fine > d/a; (echo one; echo at $n) > d/b"; output "d"; }
        command "good" { run "sh" "-c" "cat clock/d/a > x"; needs "clock"; output "x"; }
        "#,
    );
    let run = project.effai(&["build", "--check"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(run.stderr.contains("differs clock  d/b, line 2: \"at 0\" -> \"at 1\""), "{}", run.stderr);
    assert!(run.stderr.contains("kept: .effai/check/clock"), "{}", run.stderr);
    assert!(run.stderr.contains("same    good"), "{}", run.stderr);
    assert_eq!(project.read(".effai/check/clock/d/b"), "one\nat 1\n");
    assert_eq!(project.read("out/clock/d/b"), "one\nat 0\n", "what is recorded stays");
    assert!(project.builds(&[]).is_empty());

    let run = project.effai(&["build", "good", "--check"]);
    assert_eq!(run.code, 0, "only what is named is checked: {}", run.stderr);
    let run = project.effai(&["build", "--check", "--json"]);
    assert_eq!(run.code, 1);
    let checked = objects(&run, "checked");
    assert_eq!((&checked[0]["label"], &checked[0]["found"]), (&"clock".into(), &"differs".into()));
    assert_eq!((&checked[0]["path"], &checked[0]["place"]), (&"d/b".into(), &"line 2".into()));
    assert_eq!((&checked[1]["label"], &checked[1]["found"]), (&"good".into(), &"same".into()));
    assert_eq!(objects(&run, "all-checked")[0]["differ"], 1);
}

#[test]
fn a_stale_target_is_built_before_it_is_checked() {
    let project = Project::new(r#"command "a" { run "cp" "in.txt" "a.txt"; input "in.txt"; output "a.txt"; }"#);
    project.write("in.txt", "one");
    project.builds(&[]);
    project.write("in.txt", "two");
    let run = project.effai(&["build", "--check"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stderr.contains("built   a") && run.stderr.contains("same    a"), "{}", run.stderr);
    assert!(!project.path(".effai/check").exists());
}

#[test]
fn a_tensor_that_differs_is_named() {
    let project = Project::new("");
    let file = |value: f32| {
        let head = r#"{"w.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w.weight":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]}}"#;
        let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
        bytes.extend(head.as_bytes());
        [1.0, 2.0, 3.0, value].iter().for_each(|v: &f32| bytes.extend(v.to_le_bytes()));
        bytes
    };
    std::fs::write(project.path("0.bin"), file(0.5)).expect("written");
    std::fs::write(project.path("1.bin"), file(0.25)).expect("written");
    recipe(
        &project,
        r#"command "model" { run "sh" "-c" "COUNT cp $n.bin model.safetensors"; input "*.bin"; output "model.safetensors"; }"#,
    );
    let run = project.effai(&["build", "--check"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    let said = "differs model  model.safetensors, tensor `w.weight` at [0, 1]: 0.5 -> 0.25";
    assert!(run.stderr.contains(said), "{}", run.stderr);
}

#[test]
fn files_that_come_and_go_and_runs_that_fail_the_second_time_are_told() {
    let project = Project::new("");
    let twice = r#"command "a" { run "sh" "-c" "COUNT mkdir d; touch d/$n"; output "d"; }"#;
    recipe(&project, twice);
    let run = project.effai(&["build", "--check"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("differs a  d/0: a file -> not there"), "{}", run.stderr);
    recipe(&project, r#"command "b" { run "sh" "-c" "COUNT test $n = 2 && touch x"; output "x"; }"#);
    let run = project.effai(&["build", "--check"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("error: b: the second time: "), "{}", run.stderr);
    assert!(project.builds(&[]).is_empty(), "the first result stays");
}

/// Gives other bytes each time, whatever it is asked for.
struct Counter(AtomicUsize);

impl Runner for Counter {
    fn run(
        &self,
        job: &Job,
        _pool: effai::kind::Pool,
        _log: &Path,
        _cancel: &Cancel,
        _said: &mut dyn FnMut(ActionEvent),
    ) -> (Ended, Cost) {
        let n = self.0.fetch_add(1, Ordering::SeqCst);
        std::fs::write(job.out.join("o"), n.to_string()).expect("written");
        (Ended::Done, Cost::default())
    }
}

#[test]
fn what_is_not_repeatable_by_declaration_is_passed_over() {
    let project =
        Project::new("cache dir=\"cache\"\ncommand \"m\" { run \"x\"; output \"o\"; }\nspeed \"s\" { of \"m\"; }");
    let mut engine = Engine::open(&project.path("."), &Options::default()).expect("opens");
    let chosen = engine.plan().select(&["m".to_owned(), "s".to_owned()]).expect("there");
    let runner = Arc::new(Counter(AtomicUsize::new(0)));
    let options = BuildOptions { runner: runner.clone(), ..BuildOptions::new(1) };
    let cancel = Cancel::default();
    build(&mut engine, &chosen, &options, &cancel, &mut |_| {}).expect("builds");
    let mut found = Vec::new();
    let tell = &mut |event: &Event| {
        if let Event::Checked { label, found: what } = event {
            found.push((label.to_string(), what.clone()));
        }
    };
    let all_same = effai::schedule::check(&mut engine, &chosen, &options, &cancel, tell).expect("checks");
    assert!(!all_same);
    assert!(matches!(&found[0], (label, Repeat::Differs { .. }) if label == "m"), "{found:?}");
    assert_eq!(found[1], ("s".into(), Repeat::NotRepeatable));
    assert_eq!(runner.0.load(Ordering::SeqCst), 3, "two were built, one once more");
}
