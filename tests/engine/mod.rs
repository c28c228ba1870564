//! Generated graphs: whatever is edited, a build gives what a clean build would, and runs what it must and no more.
//!
//! A model beside the engine says what each target's bytes must be and who it is: its declaration, the names,
//! content and executable bits of the files it reads, and the bytes of what it stands on. A target must run if, and
//! only if, nobody of that identity has run on this store. That covers early cutoff, edits taken back and branch
//! switches without a word about any of them. Every second graph is built by one engine that stays open.
//!
//! `EFFAI_TEST_CASES=20000 cargo test --test all engine` runs more; `EFFAI_TEST_SEED=7` begins elsewhere.

mod edited;
mod graphs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use effai::action::{Cancel, Cost, Ended, Job, Runner};
use effai::engine::{Doubt, Engine, Options};
use effai::event::{ActionEvent, Event, Outcome};
use effai::failure::Failure;
use effai::schedule::{BuildOptions, build};

use graphs::{Files, Graph, Rng};

/// Builds after an edit, unless asked for more.
const CASES: u64 = 3000;

/// Edits of one graph.
const STEPS: u64 = 25;

/// What the program of a generated target does: the model's and the runner's only common ground.
pub(crate) fn compute(op: &str, parts: &[(String, Vec<u8>)]) -> Vec<u8> {
    let all: Vec<u8> = parts.iter().flat_map(|(name, bytes)| [name.as_bytes(), b"=", bytes, b";"].concat()).collect();
    match op.split_once('-').map_or(op, |(op, _)| op) {
        // Few different results: the wave stops here.
        "parity" => vec![b'0' + all.iter().fold(0, |a, b| a ^ b) % 2],
        "count" => parts.len().to_string().into_bytes(),
        _ => [op.as_bytes(), b"(", &all, b")"].concat(),
    }
}

/// Runs generated targets within the test's process and notes who ran.
#[derive(Default)]
struct InProcess {
    ran: Mutex<Vec<String>>,
}

impl Runner for InProcess {
    fn run(
        &self,
        job: &Job,
        _pool: effai::kind::Pool,
        _log: &Path,
        _cancel: &Cancel,
        _said: &mut dyn FnMut(ActionEvent),
    ) -> (Ended, Cost) {
        self.ran.lock().expect("no panic").push(job.decl.label.to_string());
        let words = |field: &str| -> Vec<String> {
            let items = job.decl.fields[field].as_array().into_iter().flatten();
            items.map(|v| v.as_str().expect("text").to_owned()).collect()
        };
        let mut parts = Vec::new();
        for pattern in words("input") {
            for path in effai::recipe::glob::expand(&job.project, &pattern).expect("listed") {
                parts.push((graphs::shown(&path), graphs::content(&job.project.join(&path))));
            }
        }
        parts.sort();
        parts.dedup();
        for label in words("needs") {
            let bytes = std::fs::read(job.inputs[&label].join("o")).expect("the input is there");
            parts.push((label, bytes));
        }
        std::fs::write(job.out.join("o"), compute(&words("run")[0], &parts)).expect("written");
        (Ended::Done, Cost::default())
    }
}

/// What ran and what was told to be so.
struct Built {
    ran: Vec<String>,
    told: BTreeMap<String, &'static str>,
}

/// An engine that stays from one build to the next, as `effai watch` has it, or one for each build.
enum Keeping {
    Staying(Option<Box<Engine>>),
    Fresh,
}

impl Keeping {
    fn engine(&mut self, root: &Path) -> Result<Engine, effai::engine::EngineError> {
        let resident = matches!(self, Keeping::Staying(_));
        if let Keeping::Staying(kept) = self
            && let Some(mut engine) = kept.take()
        {
            let there = ["out", ".effai/effai.db"].iter().all(|name| root.join(name).exists());
            if there && engine.recipes_hold() && !engine.is_overtaken() {
                engine.doubt(&Doubt::Everything);
                return Ok(*engine);
            }
            engine.save();
        }
        Engine::open(root, &Options { resident, ..Options::default() })
    }
}

fn build_now(root: &Path, words: &[String], jobs: usize, keeping: &mut Keeping) -> Result<Built, Failure> {
    let fail = |e: effai::engine::EngineError| Failure::user(format!("{e:?}"));
    let mut engine = keeping.engine(root).map_err(fail)?;
    let chosen = engine.plan().select(words).map_err(|e| fail(e.into()))?;
    let runner = Arc::new(InProcess::default());
    let options = BuildOptions { runner: runner.clone(), tell_fresh: true, ..BuildOptions::new(jobs) };
    let mut told = BTreeMap::new();
    let summary = build(&mut engine, &chosen, &options, &Cancel::default(), &mut |event| {
        if let Event::Finished { label, outcome } = event {
            let word = match outcome {
                Outcome::Built { .. } => "built",
                Outcome::Restored { .. } => "restored",
                Outcome::Fresh => "fresh",
                _ => "other",
            };
            told.insert(label.to_string(), word);
        }
    })?;
    assert_eq!(summary.failed + summary.skipped, 0);
    if let Keeping::Staying(kept) = keeping {
        *kept = Some(Box::new(engine));
    }
    let ran = runner.ran.lock().expect("no panic").clone();
    Ok(Built { ran, told })
}

/// Builds the words' targets and holds everything against the model. `seen` are the identities that ever ran.
fn check(
    root: &Path,
    graph: &Graph,
    words: &[String],
    jobs: usize,
    seen: &mut BTreeSet<String>,
    keeping: &mut Keeping,
) {
    let built = build_now(root, words, jobs, keeping).expect("builds");
    let files = Files::read(root);
    let wanted = graph.closure(words);
    let mut outputs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut must_run: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for target in graph.targets().iter().filter(|t| wanted.contains(&t.label)) {
        let parts = target.parts(&files, &outputs);
        let identity = target.identity(&files, &outputs);
        outputs.insert(target.label.clone(), compute(&target.op, &parts));
        if seen.insert(identity.clone()) {
            must_run.insert(identity.clone(), Vec::new());
        }
        if let Some(labels) = must_run.get_mut(&identity) {
            labels.push(target.label.clone());
        }
    }
    // Of targets with one identity any one may run, once.
    let mut left: Vec<&String> = built.ran.iter().collect();
    for (identity, labels) in &must_run {
        let at = left.iter().position(|l| labels.contains(l));
        let at = at.unwrap_or_else(|| panic!("none of {labels:?} ran\n{identity}\nran: {:?}", built.ran));
        left.remove(at);
    }
    assert!(left.is_empty(), "ran without need: {left:?}\ntold: {:?}", built.told);
    assert_eq!(built.told.keys().cloned().collect::<BTreeSet<_>>(), wanted, "each is told of");
    for target in graph.targets().iter().filter(|t| graph.named(words, &t.label)) {
        let got = std::fs::read(root.join("out").join(&target.label).join("o")).expect("delivered");
        let want = &outputs[&target.label];
        assert_eq!(got, *want, "{}: {} is not {}", target.label, got.escape_ascii(), want.escape_ascii());
    }
    // Once more: nothing to do.
    let again = build_now(root, words, jobs, keeping).expect("builds");
    assert!(again.ran.is_empty(), "ran again: {:?}", again.ran);
    assert!(again.told.values().all(|w| *w == "fresh"), "{:?}", again.told);
}

fn cases(asked: &str, usual: u64) -> u64 {
    std::env::var(asked).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

fn one_graph(seed: u64) {
    let dir = tempfile::tempdir().expect("made");
    let root = dir.path().join("project");
    std::fs::create_dir_all(&root).expect("made");
    let mut rng = Rng::new(seed);
    let mut graph = Graph::generate(&mut rng);
    Files::generate(&mut rng).write(&root);
    graph.write(&root);
    let mut seen = BTreeSet::new();
    let mut keeping = if seed.is_multiple_of(2) { Keeping::Staying(None) } else { Keeping::Fresh };
    let mut branches = vec![(graph.clone(), Files::read(&root))];
    for _ in 0..STEPS {
        let words = graph.some_labels(&mut rng);
        check(&root, &graph, &words, 1 + rng.below(3), &mut seen, &mut keeping);
        graphs::edit(&mut rng, &root, &mut graph, &mut branches);
    }
}

#[test]
fn any_edit_runs_what_it_must_and_gives_what_a_clean_build_gives() {
    let first = cases("EFFAI_TEST_SEED", 1);
    for seed in first..first + cases("EFFAI_TEST_CASES", CASES).div_ceil(STEPS) {
        let outcome = std::panic::catch_unwind(|| one_graph(seed));
        assert!(outcome.is_ok(), "seed {seed}: EFFAI_TEST_SEED={seed} EFFAI_TEST_CASES=1 shows it alone");
    }
}
