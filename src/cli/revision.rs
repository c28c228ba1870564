//! `effai build LABEL@REV`: what a revision's lock names, made as that revision has it where nobody has it any more.

use super::build::Flags;
use super::{Global, Output, options};
use crate::action::Cancel;
use crate::engine::claims::Held;
use crate::engine::{Engine, EngineError, Options};
use crate::event::{Event, Outcome};
use crate::failure::Failure;
use crate::git::Git;
use crate::lock::{Claim, FILE};
use crate::plan::{Index, at_revision};
use crate::schedule::{BuildOptions, build};
use crate::util::fs;

/// Sees to it that the store has those of the chosen that are named at a revision: remotes are asked, and what none of them has
/// is built as its revision has it. Returns the exit code.
pub(super) fn make(
    global: &Global,
    engine: &mut Engine,
    chosen: &[Index],
    flags: &Flags,
    output: &Output,
) -> Result<u8, EngineError> {
    let named: Vec<Index> = chosen.iter().copied().filter(|index| engine.plan().is_at_revision(*index)).collect();
    if named.is_empty() || engine.held() == Held::Frozen {
        return Ok(0);
    }
    engine.look(&named)?;
    if lacking(engine, &named).is_empty() {
        return Ok(0);
    }
    bring(engine, &named, flags, output)?;
    for (index, claim) in lacking(engine, &named) {
        let code = as_it_was(global, engine, index, &claim, flags, output)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

/// Those whose artifact the store has not. One whose revision says nothing of it is the build's to tell of.
fn lacking(engine: &Engine, named: &[Index]) -> Vec<(Index, Claim)> {
    let claims = named.iter().filter_map(|index| Some((*index, engine.named_at_revision(*index)?)));
    claims.filter(|(_, claim)| !engine.store.blobs.has_all(&claim.artifact)).collect()
}

/// Brings what remotes have. What they have not is no failure yet, and not told.
fn bring(engine: &mut Engine, named: &[Index], flags: &Flags, output: &Output) -> Result<(), EngineError> {
    let plain = flags.on_the_way();
    let mut watcher = plain.watcher(output, &engine.root)?;
    let options = BuildOptions { only_brings: true, keep_going: true, ..plain.options(&[]) };
    let made = build(engine, named, &options, &Cancel::default(), &mut |event| {
        let is_told = match event {
            Event::Finished { outcome, .. } => matches!(outcome, Outcome::Fetched { .. } | Outcome::Failed { .. }),
            Event::Fetching { .. } | Event::Said { .. } | Event::RemoteLeftOut { .. } => true,
            _ => false,
        };
        if is_told {
            watcher.see(event);
        }
    });
    watcher.end();
    made?;
    Ok(())
}

/// Builds a target in a directory of its own, as its revision has it and with the same store, to what the lock there names.
fn as_it_was(
    global: &Global,
    engine: &Engine,
    index: Index,
    claim: &Claim,
    flags: &Flags,
    output: &Output,
) -> Result<u8, EngineError> {
    let name = engine.plan().name(index);
    let (label, rev) = at_revision(name).expect("it is one");
    let within = |failure: Failure| failure.within(format!("{label} as {rev} has it"));
    output.note(&format!("{name}: no store has {}, so it is made as {rev} has it", claim.artifact.short()));
    let dir = fs::at("make a directory in", &std::env::temp_dir(), tempfile::tempdir())?;
    let root = Git::of(&engine.root).and_then(|git| git.lay_out(rev, dir.path())).map_err(Failure::from)?;
    let cache = engine.store.root().parent().map(ToOwned::to_owned);
    // A lock is of the recipes as they are written.
    let options = Options { held: Held::Locked, cache, profile: None, ..options(global) };
    let mut then = Engine::open(&root, &options)?;
    let none = || Failure::user(format!("{FILE} of {rev} has {label}, and no recipe there declares it"));
    let there = then.find(label).ok_or_else(none)?;
    let closure = then.plan().closure(&[there]);
    then.hold_to_lock(&closure).map_err(within)?;
    let plain = flags.on_the_way();
    let mut watcher = plain.watcher(output, &root)?;
    let code = plain.make(&mut then, &[there], &plain.options(&[label.to_owned()]), &mut *watcher)?;
    if code == 0 && !engine.store.blobs.has_all(&claim.artifact) {
        let text = format!("it was made, and is not {} as {FILE} says", claim.artifact.short());
        return Err(within(Failure::target(text)).into());
    }
    Ok(code)
}
