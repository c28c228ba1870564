//! `effai diff REV..REV`: what two commits' locks say differently.

use std::collections::BTreeSet;

use super::{Output, changes};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::format::difference::{self, Changed, Difference, Rows};
use crate::git::Git;
use crate::lock::{Claim, FILE, Lock, history};
use crate::plan::is_implied;
use crate::store::Purpose;
use crate::ui::style;
use crate::util::fs;
use crate::util::text::{bytes, count};

/// Names of rows, tensors and files that are told of one target; `--json` has all.
const TOLD_MAX: usize = 5;

/// The two revisions of `A..B`; without a second, the working tree's own lock is meant.
pub(super) fn of_word(word: &str) -> Option<(&str, Option<&str>)> {
    let (was, now) = word.split_once("..")?;
    (!was.is_empty()).then_some((was, Some(now).filter(|now| !now.is_empty())))
}

pub(super) fn run(engine: &Engine, was: &str, now: Option<&str>, output: &Output) -> Result<u8, EngineError> {
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let before = history::at(&git, was)?;
    let after = match now {
        Some(now) => history::at(&git, now)?,
        None => Lock::read(&engine.root)?.unwrap_or_default(),
    };
    if before.claims.is_empty() && after.claims.is_empty() {
        let failure = Failure::user(format!("neither revision has a line in {FILE}"));
        return Err(failure.help("`effai build --lock` writes it; commit it").into());
    }
    let labels: BTreeSet<&String> = before.claims.keys().chain(after.claims.keys()).collect();
    let mut differ = 0;
    for label in labels.into_iter().filter(|label| !is_implied(label)) {
        let (was, now) = (before.claims.get(label), after.claims.get(label));
        if was.map(|c| (c.key, c.artifact)) == now.map(|c| (c.key, c.artifact)) {
            continue;
        }
        differ += 1;
        tell(engine, label, was, now, output)?;
    }
    if differ == 0 {
        output.note("no target differs");
    }
    Ok(0)
}

fn tell(
    engine: &Engine,
    label: &str,
    was: Option<&Claim>,
    now: Option<&Claim>,
    output: &Output,
) -> Result<(), EngineError> {
    let (because, inside) = match (was, now) {
        (Some(was), Some(now)) => (facts(engine, label, was, now)?, content(engine, was, now)?),
        _ => (Vec::new(), None),
    };
    if output.json {
        let of = |claim: Option<&Claim>| {
            claim.map(
                |c| serde_json::json!({"key": c.key, "artifact": c.artifact, "size": c.size, "metrics": c.metrics}),
            )
        };
        output.object(&serde_json::json!({
            "version": 1, "label": label, "was": of(was), "now": of(now), "changes": because, "content": inside,
        }));
        return Ok(());
    }
    let head = match (was, now) {
        (Some(was), Some(now)) if was.artifact == now.artifact => "the same bytes by another key".to_owned(),
        (Some(was), Some(now)) if was.size == now.size => bytes(now.size),
        (Some(was), Some(now)) => format!("{} -> {}", bytes(was.size), bytes(now.size)),
        (None, Some(now)) => format!("new, {}", bytes(now.size)),
        _ => "no longer there".to_owned(),
    };
    output.line(&format!("{}  {head}", style::yellow(label)));
    let names: BTreeSet<&String> = [was, now].into_iter().flatten().flat_map(|claim| claim.metrics.keys()).collect();
    for name in names {
        let value = |claim: Option<&Claim>| claim.and_then(|claim| claim.metrics.get(name)).copied();
        match (value(was), value(now)) {
            (Some(was), Some(now)) if was == now => {}
            (Some(was), Some(now)) => output.line(&format!("    {name} {was:.4} -> {now:.4}")),
            (None, Some(now)) => output.line(&format!("    {name} {now:.4}")),
            (Some(was), None) => output.line(&format!("    {name} {was:.4} -> none")),
            (None, None) => {}
        }
    }
    for line in because {
        output.line(&format!("    {line}"));
    }
    if let Some(difference) = inside {
        words(&difference).iter().for_each(|line| output.line(&style::dim(&format!("    {line}"))));
    }
    Ok(())
}

/// The facts that changed, where both runs' are kept.
fn facts(engine: &Engine, label: &str, was: &Claim, now: &Claim) -> Result<Vec<String>, EngineError> {
    let before = changes::manifest(engine, Some(label), &was.key)?;
    let (Some(before), Some(after)) = (before, changes::manifest(engine, Some(label), &now.key)?) else {
        return Ok(Vec::new());
    };
    Ok(changes::changes(engine, Some(label), &after.reasons(&before))?.lines())
}

/// What is inside, where the store has both.
fn content(engine: &Engine, was: &Claim, now: &Claim) -> Result<Option<Difference>, EngineError> {
    if was.artifact == now.artifact {
        return Ok(None);
    }
    let scratch = fs::at("make a directory in", &std::env::temp_dir(), tempfile::tempdir())?;
    let dirs = [scratch.path().join("was"), scratch.path().join("now")];
    for (claim, dir) in [was, now].iter().zip(&dirs) {
        let store = &engine.store;
        if store.blobs.materialise(&store.index, &claim.artifact, dir, Purpose::Input).is_err() {
            return Ok(None);
        }
    }
    // What cannot be read as what it seems to be differs all the same, and that is told.
    Ok(difference::of(&dirs[0], &dirs[1]).ok())
}

fn words(difference: &Difference) -> Vec<String> {
    let some = |names: &[String]| {
        let mut said = names.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join(", ");
        if names.len() > TOLD_MAX {
            said += &format!(" and {} more", names.len() - TOLD_MAX);
        }
        said
    };
    let listed = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what}: {}", some(names)));
    match difference {
        Difference::Rows { splits } => {
            let split = |(name, rows): (&String, &Rows)| {
                let parts = [("added", &rows.added), ("removed", &rows.removed), ("changed", &rows.changed)];
                let said: Vec<String> = parts
                    .iter()
                    .filter(|(_, ids)| !ids.is_empty())
                    .map(|(what, ids)| format!("{} {what} ({})", ids.len(), some(ids)))
                    .collect();
                (!said.is_empty()).then(|| format!("{name}: {} of {}", said.join(", "), count(rows.now, "row")))
            };
            splits.iter().filter_map(split).collect()
        }
        Difference::Tensors { changed, added, removed, same } => {
            let name = |changed: &Changed| match changed.relative {
                Some(relative) => format!("{} by {relative:.2e}", changed.name),
                None => format!("{} of another shape", changed.name),
            };
            let names: Vec<String> = changed.iter().map(name).collect();
            let head = format!("{} differ, {same} are the same", count(changed.len(), "tensor"));
            let moved = listed("most", &names);
            [Some(head), moved, listed("added", added), listed("removed", removed)].into_iter().flatten().collect()
        }
        Difference::Files { added, removed, changed } => {
            let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
                paths.iter().map(|path| path.display().to_string()).collect()
            };
            let all = [("files added", added), ("files removed", removed), ("files changed", changed)];
            all.iter().filter_map(|(what, paths)| listed(what, &names(paths))).collect()
        }
    }
}
