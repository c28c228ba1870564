//! `effai status`

use super::{Global, Output, open};
use crate::engine::EngineError;
use crate::event::Verdict;
use crate::ui::style;

/// Say which targets are fresh, cached or stale, and why
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels or globs; without any, all
    targets: Vec<String>,
    /// End with 1 if anything is stale
    #[arg(long)]
    check: bool,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let chosen = engine.plan().select(&args.targets)?;
    let closure = engine.plan().closure(&chosen);
    let judged = engine.judge_all(&closure)?;
    let mut stale = false;
    for (index, judged) in &judged {
        let label = engine.label(*index);
        stale |= matches!(judged.verdict, Verdict::Stale | Verdict::Waits);
        if output.json {
            output.object(&serde_json::json!({
                "version": 1, "label": label, "verdict": judged.verdict, "key": judged.key,
                "artifact": judged.artifact, "reasons": judged.reasons,
            }));
            continue;
        }
        if label.is_part() && judged.verdict == Verdict::Fresh && !output.verbose {
            continue;
        }
        let word = match judged.verdict {
            Verdict::Fresh => style::green("fresh "),
            Verdict::Cached => style::green("cached"),
            Verdict::Stale => style::yellow("stale "),
            Verdict::Waits => style::yellow("waits "),
        };
        let mut reasons: Vec<String> = judged.reasons.iter().map(ToString::to_string).collect();
        if let Some(reason) = engine.left_out(*index)? {
            reasons.push(format!("left out: {reason}"));
        }
        output.line(format!("{word}  {label:<36} {}", reasons.join("; ")).trim_end());
    }
    Ok(u8::from(args.check && stale))
}
