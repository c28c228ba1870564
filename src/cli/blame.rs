//! `effai blame`

use super::{Global, Output, changes, open};
use crate::engine::{Engine, EngineError};
use crate::event::Verdict;
use crate::failure::Failure;
use crate::git::Git;
use crate::lock::history::{self, Step};
use crate::lock::{Claim, FILE, Lock};
use crate::plan::at_revision;
use crate::ui::style;

/// Name the commit that made a target what it is, and which facts it changed
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A label, or LABEL@REV
    target: String,
    /// Back from this revision, HEAD where none is said
    rev: Option<String>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let (target, at) = match at_revision(&args.target) {
        Some((label, rev)) => (label, Some(rev)),
        None => (&*args.target, None),
    };
    let rev = match (at, args.rev.as_deref()) {
        (Some(rev), Some(other)) => {
            let failure = Failure::user(format!("`{rev}` and `{other}` are two revisions to go back from"));
            return Err(failure.help(format!("`effai blame {target}@{rev}`")).into());
        }
        (at, rev) => at.or(rev).unwrap_or("HEAD"),
    };
    let chosen = engine.select(&[target.to_owned()], &[])?;
    let [index] = chosen[..] else {
        let failure = Failure::user(format!("`{target}` means {} targets", chosen.len()));
        return Err(failure.help("name one").into());
    };
    let label = engine.label(index).to_string();
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let steps = history::of(&git, rev, &label)?;
    let Some(Step { version, claim: Some(claim) }) = steps.first() else {
        let failure = Failure::user(format!("no commit up to {rev} has a line for {label} in {FILE}"));
        return Err(failure.help(format!("`effai build --lock {label}` writes one; commit it")).into());
    };
    let before = steps.get(1).and_then(|step| step.claim.as_ref());
    let because = facts(&engine, &label, before, claim)?;
    let here = since(&mut engine, index, &label, claim)?;
    if output.json {
        output.object(&serde_json::json!({
            "version": 1, "label": label, "commit": version, "key": claim.key, "artifact": claim.artifact,
            "changes": because, "since": here,
        }));
        return Ok(0);
    }
    output.line(&format!(
        "{}  {}  {}  {}",
        style::yellow(version.short()),
        version.date(),
        version.author,
        version.title
    ));
    for line in because {
        output.line(&format!("    {line}"));
    }
    if !here.is_empty() {
        output.line(&style::yellow("not committed yet:"));
    }
    for line in here {
        output.line(&format!("    {line}"));
    }
    Ok(0)
}

/// Which facts differ between two claims, as far as they are kept.
fn facts(engine: &Engine, label: &str, was: Option<&Claim>, now: &Claim) -> Result<Vec<String>, EngineError> {
    let Some(was) = was else { return Ok(vec!["its first version".into()]) };
    if was.key == now.key {
        return Ok(vec!["the same facts, made anew to other bytes".into()]);
    }
    let manifests =
        (changes::manifest(engine, Some(label), &was.key)?, changes::manifest(engine, Some(label), &now.key)?);
    let (Some(before), Some(after)) = manifests else {
        return Ok(vec![format!("its key was {}; the facts of both are not kept here", was.key.short())]);
    };
    Ok(changes::changes(engine, Some(label), &after.reasons(&before))?.lines())
}

/// What has changed since, in the working tree.
fn since(engine: &mut Engine, index: usize, label: &str, claim: &Claim) -> Result<Vec<String>, EngineError> {
    let closure = engine.plan().closure(&[index]);
    let judged = engine.judge_all(&closure)?.remove(&index).expect("of its own closure");
    let working = Lock::read(&engine.root)?.unwrap_or_default();
    let is_rebuilt = working.claims.get(label).is_some_and(|line| line != claim);
    Ok(match judged.verdict {
        _ if judged.key == Some(claim.key) => Vec::new(),
        Verdict::Stale | Verdict::Waits => judged.reasons.iter().map(ToString::to_string).collect(),
        Verdict::Fresh | Verdict::Cached if is_rebuilt => vec![format!("{FILE} has another key for it")],
        Verdict::Fresh | Verdict::Cached => vec![format!("it was built anew, and {FILE} does not say so")],
    })
}
