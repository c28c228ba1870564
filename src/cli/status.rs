//! `effai status`

use super::{Global, Output, open};
use crate::engine::{Engine, EngineError, Judged};
use crate::event::Verdict;
use crate::ui::style;
use crate::util::text::{count, duration};

/// Targets of one state that are listed without being asked for.
const LISTED_MAX: usize = 40;
/// Reasons of one target that are shown; `explain` has all.
const REASONS_MAX: usize = 3;

/// Say which targets are fresh, cached or stale, and why
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, or tag:WORD; without any, all
    targets: Vec<String>,
    /// Leave these out: a label, glob or tag:WORD
    #[arg(long, value_name = "TARGET")]
    exclude: Vec<String>,
    /// End with 1 if anything is stale
    #[arg(long)]
    check: bool,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let chosen = engine.select_at(&args.targets, &args.exclude)?;
    let closure = engine.plan().closure(&chosen);
    let judged = engine.judge_all(&closure)?;
    let must_run = |judged: &Judged| matches!(judged.verdict, Verdict::Stale | Verdict::Waits);
    let stale = judged.values().any(must_run);
    if output.json {
        for (index, judged) in &judged {
            output.object(&serde_json::json!({
                "version": 1, "label": engine.label(*index), "verdict": judged.verdict, "key": judged.key,
                "artifact": judged.artifact, "reasons": judged.reasons,
            }));
        }
        return Ok(u8::from(args.check && stale));
    }
    let mut counts = Vec::new();
    for (verdict, word, paint) in [
        (Verdict::Fresh, "fresh ", style::green as fn(&str) -> String),
        (Verdict::Cached, "cached", style::green),
        (Verdict::Stale, "stale ", style::yellow),
        (Verdict::Waits, "waits ", style::yellow),
    ] {
        let group: Vec<usize> = judged.iter().filter(|(_, j)| j.verdict == verdict).map(|(i, _)| *i).collect();
        if !group.is_empty() {
            counts.push(format!("{} {}", group.len(), word.trim_end()));
        }
        // What is fresh is shown where it was asked for: by name, or with -v.
        let named = |i: &usize| !args.targets.is_empty() && chosen.binary_search(i).is_ok();
        let shown: Vec<usize> =
            group.iter().copied().filter(|i| verdict != Verdict::Fresh || output.verbose || named(i)).collect();
        let most = if output.verbose { usize::MAX } else { LISTED_MAX };
        for index in shown.iter().take(most) {
            output.line(line(&engine, *index, &judged[index], &paint(word)).trim_end());
        }
        if shown.len() > most {
            output.line(&format!("{}  and {} more (-v lists all)", paint(word), shown.len() - most));
        }
    }
    let expected = if stale { expected(&engine, &judged)? } else { String::new() };
    output.note(&format!("{}: {}{expected}", count(judged.len(), "target"), counts.join(", ")));
    Ok(u8::from(args.check && stale))
}

fn line(engine: &Engine, index: usize, judged: &Judged, word: &str) -> String {
    let label = engine.label(index);
    let mut reasons: Vec<String> = judged.reasons.iter().take(REASONS_MAX).map(ToString::to_string).collect();
    if judged.reasons.len() > REASONS_MAX {
        reasons.push(format!("and {} more", judged.reasons.len() - REASONS_MAX));
    }
    if let Some(reason) = engine.left_out(index).ok().flatten() {
        reasons.push(format!("left out: {reason}"));
    }
    format!("{word}  {label:<36} {}", reasons.join("; "))
}

/// What the last runs of all that must run took together.
fn expected(engine: &Engine, judged: &std::collections::BTreeMap<usize, Judged>) -> Result<String, EngineError> {
    let to_run: Vec<_> = judged
        .iter()
        .filter(|(_, j)| matches!(j.verdict, Verdict::Stale | Verdict::Waits))
        .map(|(index, _)| engine.label(*index))
        .collect();
    let known = engine.record.pasts()?;
    let total: u64 = to_run.iter().filter_map(|label| known.get(label.as_str())).map(|past| past.wall_ms).sum();
    let ran = to_run.iter().filter(|label| known.contains_key(label.as_str())).count();
    Ok(match ran {
        0 => String::new(),
        _ if ran == to_run.len() => format!("; their last runs took {} in all", duration(total)),
        _ => format!("; the last runs of {ran} of them took {} in all", duration(total)),
    })
}
