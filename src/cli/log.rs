//! `effai log`

use super::{Global, Output, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::plan::Label;
use crate::record::{BuildRow, Run, log_file};
use crate::ui::style;
use crate::util::fs;
use crate::util::text::{bytes, duration, local_time};

/// Reasons of one run that are shown; `--json` has all.
const REASONS_MAX: usize = 3;

/// List past builds, or the runs of one target
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A label; without one, the builds are listed
    target: Option<String>,
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
            let label = label(&engine, word)?;
            if args.output { kept(&engine, &label, output)? } else { runs(&engine, &label, args.n, output)? }
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
