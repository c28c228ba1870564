//! `effai test`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::build::{self, Flags};
use super::{Global, Output, directory, open};
use crate::engine::{Engine, EngineError};
use crate::event::{Event, Outcome};
use crate::failure::{Class, Failure};
use crate::fingerprint::Digest;
use crate::format::junit::{self, TestSuite};
use crate::kind::test;
use crate::plan::{Index, Label};
use crate::report::tested::{self, End, Tested};
use crate::schedule::BuildOptions;
use crate::ui::Watcher;
use crate::util::fs;

/// The exit code where there is no test: neither success, which would hide a recipe that lost its tests, nor a failure of one.
const NO_TESTS: u8 = 4;

/// Run tests: those that something changed for; what passed before is not run again
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tests by label, globs over labels or tag:WORD; without any, all of the project
    targets: Vec<String>,
    #[command(flatten)]
    flags: Flags,
    /// Go on after a failure, as is usual here
    #[arg(short, long)]
    keep_going: bool,
    /// Begin nothing after a failure
    #[arg(long, conflicts_with = "keep_going")]
    fail_fast: bool,
    /// Write how each test ended to FILE too, as JUnit's XML
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    junit: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let begin = Instant::now();
    let mut engine = open(global)?;
    let chosen = choose(&engine, args)?;
    let file = match &args.junit {
        Some(path) => Some(directory(global)?.join(path)),
        None => None,
    };
    if chosen.is_empty() {
        output.error("the project has no tests", Some("`effai schema test` says how one is declared"));
        if let Some(file) = file {
            write(&file, &engine, Vec::new(), begin)?;
        }
        return Ok(NO_TESTS);
    }
    if args.flags.only_says() {
        return build::dry_run(&mut engine, &chosen, &args.flags, output);
    }
    let options = BuildOptions {
        keep_going: args.keep_going || !args.fail_fast,
        tell_fresh: true,
        ..args.flags.options(&args.targets)
    };
    let shown = args.flags.watcher(output, &engine.root)?;
    let mut seen = Seen { shown, outcomes: BTreeMap::new() };
    let code = args.flags.make(&mut engine, &chosen, &options, &mut seen)?;
    let Seen { mut shown, outcomes } = seen;
    let outcome = |index: &Index| outcomes.get(&engine.label(*index));
    let ends: Vec<End> = chosen.iter().map(|index| end(outcome(index))).collect();
    shown.see(&Event::Tested(tested::tally(&ends)));
    shown.end();
    if let Some(file) = file {
        let tests = chosen.iter().map(|index| tested(&engine, *index, outcome(index)));
        write(&file, &engine, tests.collect::<Result<_, _>>()?, begin)?;
    }
    engine.close();
    Ok(code)
}

/// The tests that were named, or all. A word that names targets but no test among them is a mistake.
fn choose(engine: &Engine, args: &Args) -> Result<Vec<Index>, EngineError> {
    let is_test = |index: &Index| kind(engine, *index) == test::NAME;
    for word in &args.targets {
        let named = engine.select(std::slice::from_ref(word), &[])?;
        if named.iter().any(is_test) {
            continue;
        }
        let failure = match named[..] {
            [one] => {
                let (label, kind) = (engine.label(one), kind(engine, one));
                Failure::user(format!("{label} is a `{kind}`, not a test"))
                    .help(format!("`effai build {label}` makes it"))
            }
            _ => Failure::user(format!("`{word}` names no test")).help("`effai build` makes other targets"),
        };
        return Err(failure.into());
    }
    let mut chosen = engine.select(&args.targets, &args.flags.exclude)?;
    chosen.retain(is_test);
    if chosen.is_empty() && !args.flags.exclude.is_empty() {
        let failure = Failure::user("--exclude takes out every test");
        return Err(failure.help("name more, or exclude less").into());
    }
    chosen.sort_by(|a, b| engine.label(*a).as_str().cmp(engine.label(*b).as_str()));
    Ok(chosen)
}

fn kind(engine: &Engine, index: Index) -> &'static str {
    engine.plan().kind(index).schema().name
}

/// Shows what happens, and remembers how each target ended.
struct Seen {
    shown: Box<dyn Watcher>,
    outcomes: BTreeMap<Label, Outcome>,
}

impl Watcher for Seen {
    fn see(&mut self, event: &Event) {
        if let Event::Finished { label, outcome } = event {
            self.outcomes.insert(label.clone(), outcome.clone());
        }
        self.shown.see(event);
    }

    fn end(&mut self) {
        self.shown.end();
    }

    fn worst(&self) -> Option<Class> {
        self.shown.worst()
    }
}

/// How a test ended, by the last that was told of it.
fn end(outcome: Option<&Outcome>) -> End {
    match outcome {
        Some(Outcome::Built { .. }) => End::Passed,
        Some(Outcome::Fresh | Outcome::Restored { .. } | Outcome::Fetched { .. }) => End::Cached,
        Some(Outcome::Failed { failure, .. }) => End::Failed(failure.message.clone()),
        Some(Outcome::Skipped { because }) => End::Skipped(format!("because {because} failed")),
        Some(Outcome::Missing { .. }) => End::Skipped("nothing was to run".into()),
        Some(Outcome::Late { until, .. }) => End::Skipped(format!("not begun before {until}")),
        Some(Outcome::Cancelled | Outcome::Outdated { .. }) => End::Skipped("stopped".into()),
        None => End::Skipped("not begun".into()),
    }
}

/// A test with the cases that its program told of, and the time of the run that says how it ended.
fn tested(engine: &Engine, index: Index, outcome: Option<&Outcome>) -> Result<Tested, EngineError> {
    let label = engine.label(index);
    let decl = engine.decl(index)?;
    let own = decl.fields["junit"].as_str();
    let (wall_ms, cases) = match outcome {
        Some(Outcome::Built { artifact, wall_ms, .. }) => (*wall_ms, own.map(|_| kept_cases(engine, artifact))),
        Some(Outcome::Fresh | Outcome::Restored { .. } | Outcome::Fetched { .. }) => {
            let state = engine.state(&label)?.expect("what has passed is on record");
            let wall_ms = match engine.record.maker(label.as_str(), &state.artifact)? {
                Some(run) => run.wall_ms,
                // Another project's run, of the same store.
                None => engine.store.index.get(&state.key)?.map_or(0, |row| row.wall_ms),
            };
            (wall_ms, own.map(|_| kept_cases(engine, &state.artifact)))
        }
        Some(Outcome::Failed { scratch, .. }) => {
            let wall_ms = engine.record.runs(&label, 1)?.first().map_or(0, |run| run.wall_ms);
            let file = scratch.as_ref().zip(own).map(|(kept, own)| engine.root.join(kept).join("work").join(own));
            // It may have failed before it wrote that file, or amid it.
            (wall_ms, file.and_then(|file| junit::read(&fs::read_text(&file).ok()?).ok()).map(Ok))
        }
        _ => (0, None),
    };
    let cases = cases.transpose()?.unwrap_or_default();
    Ok(Tested { label: label.to_string(), end: end(outcome), wall_ms, cases })
}

/// The cases that are kept in a test's artifact.
fn kept_cases(engine: &Engine, artifact: &Digest) -> Result<Vec<TestSuite>, EngineError> {
    let _hold = engine.store.gate.hold()?;
    let tree = engine.store.blobs.tree(artifact).map_err(Failure::from)?;
    let file = tree.entries().iter().find(|entry| entry.path == Path::new(test::JUNIT));
    let bytes = engine.store.blobs.read(&file.expect("a test's artifact has it").digest).map_err(Failure::from)?;
    Ok(junit::read(&String::from_utf8_lossy(&bytes)).expect("it was written by the kind"))
}

/// Writes the file.
fn write(file: &Path, engine: &Engine, tests: Vec<Tested>, begin: Instant) -> Result<(), EngineError> {
    let wall_ms = begin.elapsed().as_millis() as u64;
    let report = tested::junit(&engine.settings().name, tests, wall_ms);
    Ok(fs::write(file, junit::write(&report).as_bytes())?)
}
