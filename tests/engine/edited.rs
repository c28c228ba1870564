//! Files that change while an action that reads them runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use effai::action::{Cancel, Cost, Ended, Job, Runner};
use effai::engine::{Engine, Options};
use effai::event::{ActionEvent, Event, Outcome, Summary};
use effai::schedule::{BuildOptions, build};

const RECIPE: &str = "cache dir=\"../cache\"\n\
    command \"t\" {\n    run \"copy\"\n    input \"a.txt\"\n    output \"o\"\n}\n\
    command \"u\" {\n    run \"copy\"\n    input \"b.txt\"\n    output \"o\"\n}\n";

/// Copies its input, and writes to it before it does, as often as is asked.
struct Meddling {
    edits: usize,
    runs: AtomicUsize,
    /// What the input holds when the action ends, if not what it read.
    back: Option<&'static str>,
}

impl Runner for Meddling {
    fn run(
        &self,
        job: &Job,
        _pool: effai::kind::Pool,
        _log: &Path,
        _cancel: &Cancel,
        _said: &mut dyn FnMut(ActionEvent),
    ) -> (Ended, Cost) {
        let input = job.project.join(if job.decl.label.as_str() == "t" { "a.txt" } else { "b.txt" });
        if job.decl.label.as_str() == "t" {
            let run = self.runs.fetch_add(1, Ordering::SeqCst);
            if run < self.edits {
                std::fs::write(&input, format!("edit {run}")).expect("written");
            }
        }
        std::fs::copy(&input, job.out.join("o")).expect("copied");
        if let Some(back) = self.back.filter(|_| self.runs.load(Ordering::SeqCst) == 1) {
            std::fs::write(&input, back).expect("written");
        }
        (Ended::Done, Cost::default())
    }
}

struct Built {
    summary: Summary,
    runs: usize,
    outcomes: Vec<Outcome>,
    made: String,
}

fn built(root: &Path, edits: usize, back: Option<&'static str>) -> Built {
    let mut engine = Engine::open(root, &Options::default()).expect("opened");
    let chosen = engine.plan().select(&[]).expect("all");
    let runner = Arc::new(Meddling { edits, runs: AtomicUsize::new(0), back });
    let options = BuildOptions { runner: runner.clone(), keep_going: true, ..BuildOptions::new(1) };
    let mut outcomes = Vec::new();
    let summary = build(&mut engine, &chosen, &options, &Cancel::default(), &mut |event| {
        if let Event::Finished { label, outcome } = event
            && label.as_str() == "t"
        {
            outcomes.push(outcome.clone());
        }
    });
    let made = std::fs::read_to_string(root.join("out/t/o")).unwrap_or_default();
    Built { summary: summary.expect("built"), runs: runner.runs.load(Ordering::SeqCst), outcomes, made }
}

fn project() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("made");
    let root = dir.path().join("project");
    std::fs::create_dir_all(&root).expect("made");
    for (name, text) in [("effai.kdl", RECIPE), ("a.txt", "old"), ("b.txt", "b")] {
        std::fs::write(root.join(name), text).expect("written");
    }
    (dir, root)
}

#[test]
fn what_ran_on_an_edited_file_is_not_the_old_files_artifact() {
    let (_dir, root) = project();
    let first = built(&root, 1, None);
    assert_eq!((first.runs, first.made.as_str()), (2, "edit 0"));
    assert_eq!((first.summary.built, first.summary.failed), (2, 0));
    assert!(matches!(&first.outcomes[0], Outcome::Outdated { file: Some(file) } if file == "a.txt"));
    std::fs::write(root.join("a.txt"), "old").expect("written");
    let back = built(&root, 0, None);
    assert_eq!((back.runs, back.made.as_str()), (1, "old"), "nothing was kept under the old file's key");
    assert_eq!(built(&root, 0, None).summary.fresh, 2);
}

#[test]
fn a_file_that_is_back_as_it_was_may_have_been_read_otherwise() {
    let (_dir, root) = project();
    let first = built(&root, 1, Some("old"));
    assert_eq!((first.runs, first.made.as_str()), (2, "old"), "the first run read the edit");
}

#[test]
fn an_action_that_edits_its_own_input_is_told_so() {
    let (_dir, root) = project();
    let first = built(&root, usize::MAX, None);
    assert_eq!((first.runs, first.summary.built, first.summary.failed), (3, 1, 1));
    let Some(Outcome::Failed { failure, .. }) = first.outcomes.last() else { panic!("{:?}", first.outcomes) };
    assert!(failure.message.contains("changed each of the 3 times it ran"), "{failure}");
}
