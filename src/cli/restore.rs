//! `effai restore`

use std::collections::BTreeSet;

use super::{Global, Output, open};
use crate::engine::{Delivery, Engine, EngineError};
use crate::failure::Failure;
use crate::git::Git;
use crate::lock::{Claim, FILE, Lock, history};
use crate::plan::{Index, at_revision, is_implied};
use crate::record::Happened;
use crate::util::text::count;

/// Labels that are told one by one.
const TOLD_MAX: usize = 12;

/// Put into out/ what effai.lock says, and run nothing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As this revision's lock has it; without one, as the lock in the working tree has it. LABEL@REV is one target
    rev: Option<String>,
    /// These alone: labels, globs, tag:WORD; without any, what lies in out/, or everything where nothing does
    #[arg(long, value_name = "TARGET", num_args = 1..)]
    only: Vec<String>,
    /// Everything that the lock has
    #[arg(long, conflicts_with = "only")]
    all: bool,
}

/// What restoring did.
#[derive(Debug, Default, serde::Serialize)]
struct Done {
    restored: Vec<String>,
    /// It was there.
    there: usize,
    /// Somebody edited what lies there; it stays.
    edited: Vec<String>,
    /// The store lacks its bytes.
    missing: Vec<String>,
    /// No target of the recipes has that label now.
    undeclared: Vec<String>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let (one, rev) = match args.rev.as_deref().and_then(at_revision) {
        Some((label, rev)) if engine.find(label).is_some() => (Some(label.to_owned()), Some(rev)),
        _ => (None, args.rev.as_deref()),
    };
    let undeclared = |failure: Failure| match rev.filter(|rev| rev.contains(['/', '@'])) {
        Some(rev) if at_revision(rev).is_some() => {
            failure.help(format!("what is not declared now is not put back; `effai build {rev}` puts it beside"))
        }
        _ => failure,
    };
    let lock = match rev {
        Some(rev) => history::at(&Git::of(&engine.root).map_err(Failure::from)?, rev).map_err(undeclared)?,
        None => Lock::read(&engine.root)?.unwrap_or_default(),
    };
    if lock.claims.is_empty() {
        let whose = rev.map_or_else(String::new, |rev| format!("{rev} has "));
        let failure = Failure::user(format!("{whose}no target in {FILE}"));
        return Err(failure.help("`effai build --lock` writes it").into());
    }
    let only: Vec<String> = one.into_iter().chain(args.only.iter().cloned()).collect();
    let wanted = wanted(&engine, &lock, &only, args.all)?;
    let done = restore(&mut engine, &lock, &wanted)?;
    tell(&done, output);
    engine.close();
    Ok(if done.missing.is_empty() { 0 } else { 3 })
}

/// After a checkout: what lies in `out/` becomes what the lock says, and where nothing changes nothing is said.
pub(super) fn after_checkout(global: &Global, output: &Output) -> Result<(), EngineError> {
    let mut engine = open(global)?;
    let Some(lock) = Lock::read(&engine.root)? else { return Ok(()) };
    let lying = engine.record.delivered()?;
    let wanted: Vec<String> = lying.into_iter().filter(|label| lock.claims.contains_key(label)).collect();
    let done = restore(&mut engine, &lock, &wanted)?;
    if done.there < wanted.len() {
        tell(&done, output);
    }
    engine.close();
    Ok(())
}

/// The labels to restore: those asked for, else those that lie in `out/`, else all; parts never.
fn wanted(engine: &Engine, lock: &Lock, only: &[String], all: bool) -> Result<Vec<String>, EngineError> {
    let locked = lock.claims.keys().filter(|label| !is_implied(label)).cloned();
    if !only.is_empty() {
        let chosen: BTreeSet<String> =
            engine.select(only, &[])?.into_iter().map(|index| engine.label(index).to_string()).collect();
        return Ok(locked.filter(|label| chosen.contains(label)).collect());
    }
    let delivered = if all { Vec::new() } else { engine.record.delivered()? };
    // What lies beside its target as a revision had it stays that.
    let lying: BTreeSet<String> = delivered.into_iter().filter(|label| !is_implied(label)).collect();
    Ok(locked.filter(|label| lying.is_empty() || lying.contains(label)).collect())
}

fn restore(engine: &mut Engine, lock: &Lock, wanted: &[String]) -> Result<Done, EngineError> {
    let mut done = Done::default();
    let mut found: Vec<(Index, &String, &Claim)> = Vec::new();
    for label in wanted {
        match engine.plan().find(label) {
            Some(index) => found.push((index, label, &lock.claims[label])),
            None => done.undeclared.push(label.clone()),
        }
    }
    let indices: Vec<Index> = found.iter().map(|(index, ..)| *index).collect();
    engine.look_at_outputs(&indices);
    let mut happened = Happened::default();
    let hold = engine.store.enter(&engine.root)?;
    for (index, label, claim) in found {
        match engine.deliver(index, &claim.artifact)? {
            Err(_) => done.missing.push(label.clone()),
            Ok((Delivery::There, _)) => done.there += 1,
            Ok((Delivery::Edited(_), _)) => done.edited.push(label.clone()),
            Ok((Delivery::Placed | Delivery::PlacedAside(_), placed)) => {
                happened.outputs.push((engine.label(index), claim.artifact, placed));
                done.restored.push(label.clone());
            }
        }
    }
    if !happened.is_empty() {
        engine.record.put(&happened)?;
    }
    drop(hold);
    engine.keep()?;
    Ok(done)
}

fn tell(done: &Done, output: &Output) {
    if output.json {
        output.object(&serde_json::json!({"version": 1, "restore": done}));
        return;
    }
    let list = |labels: &[String]| {
        let mut said: Vec<&str> = labels.iter().take(TOLD_MAX).map(String::as_str).collect();
        let more = format!("{} more", labels.len().saturating_sub(TOLD_MAX));
        if labels.len() > TOLD_MAX {
            said.push(&more);
        }
        said.join(", ")
    };
    if !done.missing.is_empty() {
        let text =
            format!("the store does not have {}: {}", count(done.missing.len(), "artifact"), list(&done.missing));
        output.error(&text, Some("`effai pull` brings what a remote has; `effai build` makes them"));
    }
    for (labels, what) in [
        (&done.edited, "edited by hand, so they stay as they are"),
        (&done.undeclared, "in the lock, and no target of the recipes as they are now"),
    ] {
        if !labels.is_empty() {
            output.note(&format!("{what}: {}", list(labels)));
        }
    }
    output.note(&format!("{} restored, {} were there", done.restored.len(), done.there));
}
