//! `effai explain`

use super::{Global, Output, open};
use crate::engine::EngineError;
use crate::event::Verdict;

/// Say why a target is in the state it is: its facts, and which of them changed
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The label
    target: String,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let chosen = engine.plan().select(std::slice::from_ref(&args.target))?;
    let closure = engine.plan().closure(&chosen);
    let judged = engine.judge_all(&closure)?;
    for index in chosen {
        let label = engine.label(index).clone();
        let judged = &judged[&index];
        if output.json {
            output.object(&serde_json::json!({
                "version": 1, "label": label, "verdict": judged.verdict, "key": judged.key,
                "artifact": judged.artifact, "reasons": judged.reasons, "facts": judged.manifest,
            }));
            continue;
        }
        let place = engine.place(index);
        let verdict = match judged.verdict {
            Verdict::Fresh => "is fresh",
            Verdict::Cached => "is not built here, but the store has it",
            Verdict::Stale => "must run",
            Verdict::Waits => "waits for what it stands on",
        };
        output.line(&format!("{label} {verdict} (declared in {place})"));
        for reason in &judged.reasons {
            output.line(&format!("  because {reason}"));
        }
        if let Some(key) = judged.key {
            output.line(&format!("  key      {key}"));
        }
        if let Some(artifact) = judged.artifact {
            output.line(&format!("  artifact {artifact}"));
        }
        if let Some(past) = engine.record.past(&label) {
            output.line(&format!(
                "  last run {}, {} at its peak",
                crate::util::text::duration(past.wall_ms),
                crate::util::text::bytes(past.peak_bytes)
            ));
        }
        if let Some(manifest) = &judged.manifest {
            output.line("  facts:");
            for (name, fact) in manifest.facts() {
                output.line(&format!("    {name:<40} {fact}"));
            }
        }
    }
    Ok(0)
}
