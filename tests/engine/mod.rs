//! Generated graphs: whatever is edited, a build gives what a clean build would, and runs what it must and no more.
//!
//! A model beside the engine says what each target's bytes must be and who it is: its declaration, the names,
//! content and executable bits of the files it reads, and the bytes of what it stands on. A target must run if, and
//! only if, nobody of that identity has run on this store. That covers early cutoff, edits taken back and branch
//! switches without a word about any of them. Every second graph is built by one engine that stays open.
//!
//! `EFFAI_TEST_CASES=20000 cargo test --test all engine` runs more; `EFFAI_TEST_SEED=7` begins elsewhere.

mod edited;
pub(crate) mod graphs;

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
const CASES: u64 = 500;

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
        if words("run")[0].starts_with("fail") {
            return (Ended::Failed(Failure::target("as it is to")), Cost::default());
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

/// How a build is asked for.
#[derive(Clone, Copy, Default)]
struct Way {
    profile: Option<&'static str>,
    jobs: usize,
    force: bool,
}

/// An engine that stays from one build to the next, as `effai watch` has it, or one for each build.
enum Keeping {
    Staying(Option<(Box<Engine>, Option<&'static str>)>),
    Fresh,
}

impl Keeping {
    fn engine(&mut self, root: &Path, profile: Option<&'static str>) -> Result<Engine, effai::engine::EngineError> {
        let resident = matches!(self, Keeping::Staying(_));
        if let Keeping::Staying(kept) = self
            && let Some((mut engine, of)) = kept.take()
        {
            let there = ["out", ".effai/effai.db"].iter().all(|name| root.join(name).exists());
            if there && of == profile && engine.recipes_hold() && !engine.is_overtaken() {
                engine.doubt(&Doubt::Everything);
                return Ok(*engine);
            }
            engine.save();
        }
        Engine::open(root, &Options { resident, profile: profile.map(str::to_owned), ..Options::default() })
    }
}

fn build_now(root: &Path, words: &[String], way: Way, keeping: &mut Keeping) -> Result<Built, Failure> {
    let Way { profile, jobs, force } = way;
    let fail = |e: effai::engine::EngineError| Failure::user(format!("{e:?}"));
    let mut engine = keeping.engine(root, profile).map_err(fail)?;
    let chosen = engine.plan().select(words).map_err(|e| fail(e.into()))?;
    let runner = Arc::new(InProcess::default());
    let options =
        BuildOptions { runner: runner.clone(), tell_fresh: true, keep_going: true, force, ..BuildOptions::new(jobs) };
    let mut told = BTreeMap::new();
    let summary = build(&mut engine, &chosen, &options, &Cancel::default(), &mut |event| {
        if let Event::Finished { label, outcome } = event {
            let word = match outcome {
                Outcome::Built { .. } => "built",
                Outcome::Restored { .. } => "restored",
                Outcome::Fresh => "fresh",
                Outcome::Failed { .. } => "failed",
                Outcome::Skipped { .. } => "skipped",
                _ => "other",
            };
            told.insert(label.to_string(), word);
        }
    })?;
    let count = |word: &str| told.values().filter(|w| **w == word).count();
    assert_eq!((summary.failed as usize, summary.skipped as usize), (count("failed"), count("skipped")));
    if let Keeping::Staying(kept) = keeping {
        *kept = Some((Box::new(engine), profile));
    }
    let ran = runner.ran.lock().expect("no panic").clone();
    Ok(Built { ran, told })
}

/// Builds the words' targets and holds everything against the model. `seen` are the identities that ever ran.
fn check(root: &Path, graph: &Graph, words: &[String], way: Way, seen: &mut BTreeSet<String>, keeping: &mut Keeping) {
    let graph = &graph.under(way.profile);
    let built = build_now(root, words, way, keeping).expect("builds");
    let files = Files::read(root);
    let wanted = graph.closure(words);
    let mut outputs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut must_run: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut failed, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    let mut forced_identities = BTreeSet::new();
    let mut left: Vec<&String> = built.ran.iter().collect();
    let mut ran = |label: &String| left.iter().position(|l| *l == label).map(|at| left.remove(at)).is_some();
    for target in graph.targets().iter().filter(|t| wanted.contains(&t.label)) {
        if target.needs.iter().any(|n| failed.contains(n) || skipped.contains(n)) {
            skipped.insert(target.label.clone());
            continue;
        }
        if target.fails() {
            assert!(ran(&target.label), "{} did not run\ntold: {:?}", target.label, built.told);
            failed.insert(target.label.clone());
            continue;
        }
        let parts = target.parts(&files, &outputs);
        let identity = target.identity(&files, &outputs);
        outputs.insert(target.label.clone(), compute(&target.op, &parts));
        let forced = way.force && graph.named(words, &target.label);
        if forced {
            forced_identities.insert(identity.clone());
        }
        if seen.insert(identity.clone()) || forced {
            must_run.entry(identity.clone()).or_default();
        }
        if let Some(labels) = must_run.get_mut(&identity) {
            labels.push(target.label.clone());
        }
    }
    // Of targets with one identity any one may run, once.
    for (identity, labels) in &must_run {
        let at = left.iter().position(|l| labels.contains(l));
        let at = at.unwrap_or_else(|| panic!("none of {labels:?} ran\n{identity}\nran: {:?}", built.ran));
        left.remove(at);
        if forced_identities.contains(identity) {
            // Others of that identity may take its result or run as well.
            left.retain(|l| !labels.contains(l));
        }
    }
    assert!(left.is_empty(), "ran without need: {left:?}\ntold: {:?}", built.told);
    assert_eq!(built.told.keys().cloned().collect::<BTreeSet<_>>(), wanted, "each is told of");
    let told = |word: &str| -> BTreeSet<String> {
        built.told.iter().filter(|(_, w)| **w == word).map(|(label, _)| label.clone()).collect()
    };
    assert_eq!((told("failed"), told("skipped")), (failed.clone(), skipped.clone()));
    let broken = |label: &String| failed.contains(label) || skipped.contains(label);
    for target in graph.targets().iter().filter(|t| graph.named(words, &t.label) && !broken(&t.label)) {
        let got = std::fs::read(root.join("out").join(&target.label).join("o")).expect("delivered");
        let want = &outputs[&target.label];
        assert_eq!(got, *want, "{}: {} is not {}", target.label, got.escape_ascii(), want.escape_ascii());
    }
    // Once more: nothing to do, but for what failed.
    let again = build_now(root, words, Way { force: false, ..way }, keeping).expect("builds");
    assert_eq!(again.ran.iter().cloned().collect::<BTreeSet<_>>(), failed, "ran again");
    assert!(again.told.iter().all(|(label, w)| *w == "fresh" || broken(label)), "{:?}", again.told);
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
        let profile = (rng.below(3) == 0).then_some(graphs::PROFILE);
        let way = Way { profile, jobs: 1 + rng.below(3), force: rng.below(8) == 0 };
        check(&root, &graph, &words, way, &mut seen, &mut keeping);
        if rng.below(10) == 0 {
            // With nothing edited between: what one profile keeps is not the other's.
            let profile = profile.is_none().then_some(graphs::PROFILE);
            check(&root, &graph, &words, Way { profile, force: false, ..way }, &mut seen, &mut keeping);
        }
        graphs::edit(&mut rng, &root, &mut graph, &mut branches);
    }
}

#[test]
fn any_edit_runs_what_it_must_and_gives_what_a_clean_build_gives() {
    let graphs = cases("EFFAI_TEST_CASES", CASES).div_ceil(STEPS);
    let first = cases("EFFAI_TEST_SEED", 1);
    for seed in first..first + graphs {
        let outcome = std::panic::catch_unwind(|| one_graph(seed));
        assert!(outcome.is_ok(), "seed {seed}: EFFAI_TEST_SEED={seed} EFFAI_TEST_CASES=1 shows it alone");
    }
}
