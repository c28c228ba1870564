//! `effai explain`

use std::collections::BTreeMap;

use super::{Global, Output, changes, open};
use crate::engine::{Engine, EngineError, Judged};
use crate::event::Verdict;
use crate::fingerprint::Manifest;
use crate::record::Run;
use crate::report::why::Changes;
use crate::util::text::{bytes, count, duration, local_time};

/// Facts that are shown without being asked for.
const FACTS_MAX: usize = 40;
/// Stale targets named as what another waits for.
const CAUSES_MAX: usize = 5;

/// Say why a target is in the state it is: what changed, why it last ran, and its facts
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The label, or LABEL@REV
    target: String,
}

/// Everything there is to say of one target.
struct Explained {
    judged: Judged,
    /// What differs from its last good run.
    changes: Changes,
    /// What it waits for, and why that must run.
    causes: Vec<(String, Changes)>,
    /// Stale targets under it besides those named.
    more_causes: usize,
    last: Option<(Run, Vec<String>)>,
    left_out: Option<String>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let chosen = engine.select_at(std::slice::from_ref(&args.target), &[])?;
    let closure = engine.plan().closure(&chosen);
    let judged = engine.judge_all(&closure)?;
    for index in chosen {
        let explained = explain(&engine, index, &judged)?;
        if output.json {
            json(&engine, index, &explained, output);
        } else {
            tell(&engine, index, &explained, output);
        }
    }
    Ok(0)
}

fn explain(engine: &Engine, index: usize, all: &BTreeMap<usize, Judged>) -> Result<Explained, EngineError> {
    let label = engine.label(index);
    let mut judged = all[&index].clone();
    judged.manifest = engine.facts(index, all)?;
    let changes = match judged.verdict {
        Verdict::Waits => Changes::default(),
        _ => changes::changes(engine, Some(label.as_str()), &judged.reasons)?,
    };
    let mut causes = Vec::new();
    let mut more_causes = 0;
    if judged.verdict == Verdict::Waits {
        for under in engine.plan().closure(&[index]) {
            let Some(stale) = all.get(&under).filter(|j| j.verdict == Verdict::Stale) else { continue };
            if causes.len() == CAUSES_MAX {
                more_causes += 1;
                continue;
            }
            let name = engine.plan().name(under);
            causes.push((name.to_owned(), changes::changes(engine, Some(name), &stale.reasons)?));
        }
    }
    let (last, left_out) = (last_run(engine, index)?, engine.left_out(index)?);
    Ok(Explained { judged, changes, causes, more_causes, last, left_out })
}

/// The last good run and why it was: its facts against those of the run before, else as recorded.
fn last_run(engine: &Engine, index: usize) -> Result<Option<(Run, Vec<String>)>, EngineError> {
    let label = engine.label(index);
    let mut good = engine.record.runs(&label, 50)?.into_iter().filter(|run| run.outcome == "built");
    let Some(last) = good.next() else { return Ok(None) };
    let name = Some(label.as_str());
    let before = good.find(|run| run.key != last.key);
    if let Some(before) = before
        && let Some(was) = changes::manifest(engine, name, &before.key)?
        && let Some(now) = changes::manifest(engine, name, &last.key)?
        && last.reasons != ["forced"]
    {
        let changes = changes::changes(engine, name, &now.reasons(&was))?;
        return Ok(Some((last, changes.lines())));
    }
    let reasons = last.reasons.clone();
    Ok(Some((last, reasons)))
}

fn tell(engine: &Engine, index: usize, explained: &Explained, output: &Output) {
    let (label, judged) = (engine.label(index), &explained.judged);
    let place = engine.place(index);
    let is_at_revision = engine.plan().is_at_revision(index);
    let verdict = match judged.verdict {
        _ if is_at_revision && judged.artifact.is_some_and(|artifact| engine.store.blobs.has_all(&artifact)) => {
            "is in the store"
        }
        _ if is_at_revision => "is not in the store, so remotes are asked",
        Verdict::Fresh => "is fresh",
        Verdict::Cached => "is not built here, but the store has it",
        Verdict::Stale => "must run",
        Verdict::Waits => "waits for what it stands on",
    };
    output.line(&format!("{label} {verdict} (declared in {place})"));
    because(&explained.changes.lines(), output);
    for (name, changes) in &explained.causes {
        output.line(&format!("  {name} must run"));
        changes.lines().iter().for_each(|line| output.line(&format!("    because {line}")));
    }
    if explained.more_causes > 0 {
        output.line(&format!("  and {} more", explained.more_causes));
    }
    if let Some(reason) = &explained.left_out {
        output.line(&format!("  left out: {reason}"));
    }
    if let Some(key) = judged.key {
        output.line(&format!("  key      {key}"));
    }
    if let Some(artifact) = judged.artifact {
        output.line(&format!("  artifact {artifact}"));
    }
    if let Some((run, reasons)) = &explained.last {
        let build = run.timing.as_ref().map(|t| format!(" in build {}", t.build)).unwrap_or_default();
        output.line(&format!(
            "  last run {}{build}, {}, {} at its peak",
            local_time(&run.started_at),
            duration(run.wall_ms),
            bytes(run.peak_bytes)
        ));
        because(reasons, output);
    }
    if let Some(manifest) = &judged.manifest {
        facts(manifest, output);
    }
}

fn because(lines: &[String], output: &Output) {
    for line in lines {
        // What a line explains of the one before is indented already.
        let text = if line.starts_with(' ') { format!("    {line}") } else { format!("  because {line}") };
        output.line(&text);
    }
}

fn facts(manifest: &Manifest, output: &Output) {
    output.line("  facts:");
    let most = if output.verbose { usize::MAX } else { FACTS_MAX };
    let mut all = manifest.facts();
    for (name, fact) in all.by_ref().take(most) {
        output.line(&format!("    {name:<40} {fact}"));
    }
    let more = all.count();
    if more > 0 {
        output.line(&format!("    and {} more (-v shows all)", count(more, "fact")));
    }
}

fn json(engine: &Engine, index: usize, explained: &Explained, output: &Output) {
    let judged = &explained.judged;
    let last = explained.last.as_ref().map(|(run, reasons)| {
        serde_json::json!({
            "started-at": run.started_at, "key": run.key, "wall-ms": run.wall_ms, "peak-bytes": run.peak_bytes,
            "because": reasons,
        })
    });
    let waits: Vec<_> = explained
        .causes
        .iter()
        .map(|(label, changes)| serde_json::json!({"label": label, "changes": changes}))
        .collect();
    output.object(&serde_json::json!({
        "version": 1, "label": engine.label(index), "verdict": judged.verdict, "key": judged.key,
        "artifact": judged.artifact, "reasons": judged.reasons, "changes": explained.changes, "waits-for": waits,
        "last-run": last, "facts": judged.manifest,
    }));
}
