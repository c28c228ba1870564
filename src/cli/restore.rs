//! `effai restore`

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Global, Output, open};
use crate::engine::{Delivery, Engine, EngineError};
use crate::failure::Failure;
use crate::git::Git;
use crate::lock::{Claim, FILE, Lock, history};
use crate::plan::{Index, at_revision, is_implied};
use crate::record::Happened;
use crate::util::fs;
use crate::util::text::{bytes, count};

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
    /// Another commit was checked out meanwhile.
    #[serde(skip)]
    is_overtaken: bool,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let turn = match turn(&engine.root)? {
        Some(turn) => turn,
        None => {
            output.note("a checkout's restore goes on: this waits for it");
            let turn = wait_for_turn(&engine.root)?;
            // It has changed what this one read.
            engine = open(global)?;
            turn
        }
    };
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
    let done = restore(&mut engine, &lock, &wanted, rev.is_none())?;
    if done.is_overtaken {
        drop((turn, engine));
        return run(global, args, output);
    }
    tell(&done, output);
    engine.close();
    Ok(if done.missing.is_empty() { 0 } else { 3 })
}

/// Whoever restores holds the lock of this file, so that of two checkouts the later one is what lies there in the end.
const TURN: &str = ".effai/checkout.lock";

/// What a restore behind a checkout says.
const LOG: &str = ".effai/checkout.log";

/// What is put in place while git waits; more goes on behind the checkout.
const BYTES_AT_ONCE: u64 = 64 << 20;
const FILES_AT_ONCE: usize = 100;

/// The turn to restore; none where somebody has it.
fn turn(root: &Path) -> Result<Option<File>, Failure> {
    let turn = fs::create(&root.join(TURN))?;
    match turn.try_lock() {
        Ok(()) => Ok(Some(turn)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Ok(fs::at("lock", Path::new(TURN), Err(error))?),
    }
}

fn wait_for_turn(root: &Path) -> Result<File, Failure> {
    let turn = fs::create(&root.join(TURN))?;
    fs::at("lock", Path::new(TURN), turn.lock())?;
    Ok(turn)
}

/// Where a restore that goes on behind a checkout says what it does; none where none goes on.
pub(super) fn behind(root: &Path) -> Result<Option<&'static str>, Failure> {
    Ok(turn(root)?.is_none().then_some(LOG))
}

/// Starts a restore that git does not wait for, with a process group of its own.
fn start_behind(root: &Path) -> Result<(), Failure> {
    let log = fs::create(&root.join(LOG))?;
    let also = fs::at("open", Path::new(LOG), log.try_clone())?;
    let start = || {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("restore").current_dir(root).process_group(0);
        command.stdin(Stdio::null()).stdout(log).stderr(also).spawn()
    };
    start().map(drop).map_err(|e| Failure::environment(format!("cannot start a restore: {e}")))
}

/// After a checkout: what lies in `out/` becomes what the lock says, and where nothing changes nothing is said. What takes
/// longer than a moment goes on behind it, unless git's configuration says otherwise (`effai.checkout`).
pub(super) fn after_checkout(global: &Global, output: &Output) -> Result<(), EngineError> {
    let mut engine = open(global)?;
    let Some(lock) = Lock::read(&engine.root)? else { return Ok(()) };
    let when = Git::of(&engine.root).ok().and_then(|git| git.setting("effai.checkout"));
    let lying = engine.record.delivered()?;
    let wanted: Vec<String> = lying.into_iter().filter(|label| lock.claims.contains_key(label)).collect();
    let (targets, size, files) = outstanding(&mut engine, &lock, &wanted)?;
    let is_brief = size < BYTES_AT_ONCE && files < FILES_AT_ONCE;
    let is_behind = match when.as_deref() {
        Some("off") => {
            if targets > 0 {
                output.note(&format!("{} in out/ not of this commit: `effai restore`", count(targets, "target")));
            }
            return Ok(());
        }
        Some("foreground") => false,
        Some("background") => true,
        Some(other) => {
            let failure = Failure::user(format!("git's configuration has effai.checkout = {other}"));
            return Err(failure.help("it is foreground, background or off").into());
        }
        None => !is_brief,
    };
    // One that goes on may be of an older checkout, also where what lies there now is this one's.
    let turn = match turn(&engine.root)? {
        None if when.is_some() && !is_behind => Some(wait_for_turn(&engine.root)?),
        turn => turn,
    };
    if turn.is_none() || (is_behind && targets > 0) {
        drop(turn);
        start_behind(&engine.root)?;
        let what = format!("{} ({})", count(targets, "target"), bytes(size));
        output.note(&format!("restoring {what} behind this; `effai restore` waits for it, and {LOG} has what it says"));
        return Ok(());
    }
    let done = restore(&mut engine, &lock, &wanted, false)?;
    if done.there < wanted.len() {
        tell(&done, output);
    }
    engine.close();
    Ok(())
}

/// What of these does not lie in `out/` as the lock says: targets, bytes, and files.
fn outstanding(engine: &mut Engine, lock: &Lock, wanted: &[String]) -> Result<(usize, u64, usize), EngineError> {
    let found: Vec<(Index, &Claim)> =
        wanted.iter().filter_map(|label| Some((engine.plan().find(label)?, &lock.claims[label]))).collect();
    let indices: Vec<Index> = found.iter().map(|(index, _)| *index).collect();
    engine.look_at_outputs(&indices);
    let (mut targets, mut size, mut files) = (0, 0, 0);
    for (index, claim) in found {
        if !engine.is_in_out(index, &claim.artifact)? {
            let tree = engine.store.blobs.tree(&claim.artifact);
            files += tree.map_or(0, |tree| tree.entries().len());
            (targets, size) = (targets + 1, size + claim.size);
        }
    }
    Ok((targets, size, files))
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

/// Puts these into `out/`; one that follows the working tree ends where its lock is another than this.
fn restore(engine: &mut Engine, lock: &Lock, wanted: &[String], follows: bool) -> Result<Done, EngineError> {
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
        if follows && Lock::read(&engine.root)?.as_ref() != Some(lock) {
            done.is_overtaken = true;
            break;
        }
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
