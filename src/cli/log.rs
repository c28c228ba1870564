//! `effai log`

use super::{Global, Output, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::git::Git;
use crate::git::notes::{self, NotedTarget};
use crate::lock::FILE;
use crate::lock::history::{self, Step};
use crate::plan::{Label, at_revision};
use crate::record::{BuildRow, Run, log_file};
use crate::ui::style;
use crate::util::fs;
use crate::util::text::{bytes, duration, local_time};

/// Reasons of one run that are shown; `--json` has all.
const REASONS_MAX: usize = 3;

/// List past builds, or the versions of one target along git's history, or its runs here
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A label, or LABEL@REV for its versions up to a revision; without one, the builds are listed
    target: Option<String>,
    /// Its runs here, where git's history has versions of it
    #[arg(long, requires = "target")]
    runs: bool,
    /// How many, newest first
    #[arg(short, value_name = "N", default_value_t = 20)]
    n: usize,
    /// Print the kept output of the target's last run
    #[arg(long, requires = "target")]
    output: bool,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    match &args.target {
        None => builds(&engine, args.n, output)?,
        Some(word) => {
            let (word, rev) = at_revision(word).map_or((&**word, None), |(label, rev)| (label, Some(rev)));
            let label = label(&engine, word)?;
            if let Some(rev) = rev {
                if args.output || args.runs {
                    let failure = Failure::user("runs are not kept by revision");
                    return Err(failure.help(format!("`effai log {word} --runs` lists those of here")).into());
                }
                if !versions(&engine, &label, rev, args.n, output)? {
                    output.note(&format!("no commit up to {rev} has a line for {label} in {FILE}"));
                }
            } else if args.output {
                kept(&engine, &label, output)?;
            } else if args.runs || !versions(&engine, &label, "HEAD", args.n, output)? {
                runs(&engine, &label, args.n, output)?;
            }
        }
    }
    Ok(0)
}

/// The label a word means: of a target there is, or of one that ran once and is no longer declared.
fn label(engine: &Engine, word: &str) -> Result<Label, EngineError> {
    if Label::complaint(word.split(':').next().unwrap_or_default()).is_none() {
        let gone = Label::new(word);
        if engine.find(word).is_none() && !engine.record.runs(&gone, 1)?.is_empty() {
            return Ok(gone);
        }
    }
    let chosen = engine.select(std::slice::from_ref(&word.to_owned()), &[])?;
    match chosen[..] {
        [one] => Ok(engine.label(one).clone()),
        _ => Err(Failure::user(format!("`{word}` means {} targets", chosen.len())).help("name one").into()),
    }
}

/// Lists what commits up to a revision say that a target is. Says whether there was anything.
fn versions(engine: &Engine, label: &Label, rev: &str, most: usize, output: &Output) -> Result<bool, EngineError> {
    let Ok(git) = Git::of(&engine.root) else { return Ok(false) };
    if rev == "HEAD" && git.head().map_err(Failure::from)?.is_none() {
        return Ok(false);
    }
    let steps = history::of(&git, rev, label.as_str())?;
    for Step { version, claim } in steps.iter().take(most) {
        let notes = notes::before(&git, &version.commit).map_err(Failure::from)?;
        let noted = notes.iter().flat_map(|note| &note.targets);
        let of_claim = |t: &&NotedTarget| claim.as_ref().is_some_and(|c| t.label == label.as_str() && t.key == c.key);
        let noted = noted.rev().find(of_claim);
        let backend = noted.map(|target| target.backend.clone());
        if output.json {
            output.object(&serde_json::json!({
                "version": 1, "label": label.as_str(), "commit": version, "key": claim.as_ref().map(|c| c.key),
                "artifact": claim.as_ref().map(|c| c.artifact), "size": claim.as_ref().map(|c| c.size),
                "metrics": claim.as_ref().map(|c| &c.metrics), "backend": backend,
                "wall-ms": noted.map(|t| t.wall_ms), "peak-bytes": noted.map(|t| t.peak_bytes),
            }));
            continue;
        }
        let commit = style::yellow(version.short());
        let Some(claim) = claim else {
            output.line(&format!("{}  {commit}  no longer there  {}", version.date(), version.title));
            continue;
        };
        let by = backend.map(|backend| format!("  {backend}")).unwrap_or_default();
        let (artifact, size) = (claim.artifact.short(), bytes(claim.size));
        output.line(&format!("{}  {commit}  {artifact}  {size:>10}{by}  {}", version.date(), version.title));
        if !claim.metrics.is_empty() {
            let words: Vec<String> = claim.metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            output.line(&style::dim(&format!("    {}", words.join(", "))));
        }
    }
    Ok(!steps.is_empty())
}

fn builds(engine: &Engine, most: usize, output: &Output) -> Result<(), EngineError> {
    let builds = engine.record.builds(most)?;
    if builds.is_empty() {
        output.note("no build has done anything here yet");
    }
    for build in builds {
        if output.json {
            output.object(&serde_json::json!({
                "version": 1, "build": build.id, "started-at": build.started_at, "asked": build.asked,
                "jobs": build.jobs, "wall-ms": build.wall_ms, "built": build.built, "restored": build.restored,
                "fresh": build.fresh, "failed": build.failed, "skipped": build.skipped,
            }));
        } else {
            output.line(&build_line(&build));
        }
    }
    Ok(())
}

fn build_line(build: &BuildRow) -> String {
    let counts =
        [(build.built, "built"), (build.restored, "restored"), (build.failed, "failed"), (build.skipped, "skipped")];
    let said: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let (what, took) = match build.wall_ms {
        Some(ms) if said.is_empty() => ("stopped".to_owned(), duration(ms)),
        Some(ms) => (said.join(", "), duration(ms)),
        None => ("did not end".to_owned(), String::new()),
    };
    let what = format!("{what:<32}");
    let what = if build.failed > 0 || build.wall_ms.is_none() { style::red(&what) } else { what };
    let asked = if build.asked.is_empty() { "(default)".to_owned() } else { build.asked.join(" ") };
    format!("{:>5}  {}  {what} {took:>12}  {asked}", build.id, local_time(&build.started_at))
}

fn runs(engine: &Engine, label: &Label, most: usize, output: &Output) -> Result<(), EngineError> {
    let runs = engine.record.runs(label, most)?;
    if runs.is_empty() {
        output.note(&format!("{label} never ran here"));
    }
    for run in runs {
        let metrics = engine.record.metrics(run.id)?;
        if output.json {
            let metrics: serde_json::Map<String, serde_json::Value> =
                metrics.into_iter().map(|(name, value)| (name, value.into())).collect();
            output.object(&serde_json::json!({
                "version": 1, "label": run.label, "build": run.timing.as_ref().map(|t| t.build), "kind": run.kind,
                "started-at": run.started_at, "outcome": run.outcome, "message": run.message, "key": run.key,
                "artifact": run.artifact, "wall-ms": run.wall_ms, "cpu-ms": run.cpu_ms, "peak-bytes": run.peak_bytes,
                "threads": run.threads, "sandbox": run.sandbox, "reasons": run.reasons, "metrics": metrics,
            }));
        } else {
            tell(&run, &metrics, output);
        }
    }
    Ok(())
}

fn tell(run: &Run, metrics: &[(String, f64)], output: &Output) {
    let outcome = format!("{:<9}", run.outcome);
    let outcome = if run.outcome == "built" { style::green(&outcome) } else { style::red(&outcome) };
    output.line(&format!(
        "{}  {outcome}  {:>12}  {:>10}  {}",
        local_time(&run.started_at),
        duration(run.wall_ms),
        bytes(run.peak_bytes),
        run.key.short()
    ));
    if let Some(message) = &run.message {
        output.line(&format!("    {message}"));
    }
    if run.sandbox.as_deref() == Some("off") {
        output.line("    without the sandbox (--sandbox off)");
    }
    for reason in run.reasons.iter().take(REASONS_MAX) {
        output.line(&format!("    because {reason}"));
    }
    if run.reasons.len() > REASONS_MAX {
        output.line(&format!("    and {} more reasons", run.reasons.len() - REASONS_MAX));
    }
    if !metrics.is_empty() {
        let words: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
        output.line(&style::dim(&format!("    {}", words.join(", "))));
    }
}

/// What the last run wrote, as it is.
fn kept(engine: &Engine, label: &Label, output: &Output) -> Result<(), EngineError> {
    let path = log_file(&engine.root, label);
    match fs::read(&path) {
        Ok(text) => output.raw(&text),
        Err(e) if e.is_missing() => {
            let failure = Failure::user(format!("no output of {label} is kept"));
            return Err(failure.help("it has not run here, or `.effai` was emptied").into());
        }
        Err(e) => return Err(e.into()),
    }
    Ok(())
}
