//! `effai diff`

use super::{Global, Output, changes, open, revisions};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::fingerprint::{Digest, Manifest};
use crate::git::Git;
use crate::lock::{FILE, history};
use crate::plan::{Label, at_revision};

/// Digits of a key that are enough to be meant as one.
const DIGITS_MIN: usize = 4;

/// Say what differs between two runs, or with A..B between what two commits' locks say
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A key or its first digits; a label for its last key, LABEL~1 for the one before, LABEL@REV for that of a commit's
    /// lock; or two revisions, A..B, and A.. for the lock in the working tree
    was: String,
    /// Likewise; not after two revisions
    now: Option<String>,
}

/// A key that a word means.
struct Named {
    key: Digest,
    label: Option<String>,
    manifest: Manifest,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let Some(now) = &args.now else {
        if let Some((was, now)) = revisions::of_word(&args.was) {
            return revisions::run(&engine, was, now, output);
        }
        let failure = Failure::user("there is nothing to compare it with");
        return Err(failure
            .help(format!("`effai diff {0}~1 {0}`, or two revisions: `effai diff HEAD~1..`", args.was))
            .into());
    };
    let (was, now) = (resolve(&engine, &args.was)?, resolve(&engine, now)?);
    let label = now.label.as_deref().or(was.label.as_deref());
    let changes = changes::changes(&engine, label, &now.manifest.reasons(&was.manifest))?;
    if output.json {
        output.object(&serde_json::json!({
            "version": 1, "was": {"key": was.key, "label": was.label}, "now": {"key": now.key, "label": now.label},
            "changes": changes,
        }));
        return Ok(0);
    }
    for (word, named) in [("was", &was), ("now", &now)] {
        output.line(format!("{word} {}  {}", named.key, named.label.as_deref().unwrap_or_default()).trim_end());
    }
    for line in changes.lines() {
        output.line(&format!("  {line}"));
    }
    if changes.is_empty() {
        output.line("  no fact differs");
    }
    Ok(0)
}

/// The key that a word means, and whose it is.
pub(super) fn key_of(engine: &Engine, word: &str) -> Result<(Digest, Option<String>), EngineError> {
    if let Some(found) = of_revision(engine, word)? {
        return Ok(found);
    }
    match of_label(engine, word)? {
        Some(found) => Ok(found),
        None => of_digits(engine, word),
    }
}

fn resolve(engine: &Engine, word: &str) -> Result<Named, EngineError> {
    let (key, label) = key_of(engine, word)?;
    let unkept = || {
        Failure::user(format!("the facts of key {} are not kept", key.short()))
            .help("they are kept of runs that ended well, until the store is pruned")
    };
    let manifest = changes::manifest(engine, label.as_deref(), &key)?.ok_or_else(unkept)?;
    Ok(Named { key, label, manifest })
}

/// LABEL@REV: the key that a commit's lock has.
fn of_revision(engine: &Engine, word: &str) -> Result<Option<(Digest, Option<String>)>, EngineError> {
    let Some((label, rev)) = at_revision(word) else { return Ok(None) };
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let lock = history::at(&git, rev)?;
    let none = || Failure::user(format!("{FILE} of {rev} has no line for {label}"));
    let claim = lock.claims.get(label).ok_or_else(none)?;
    Ok(Some((claim.key, Some(label.to_owned()))))
}

/// A label's last key, or with `~N` the Nth before it.
fn of_label(engine: &Engine, word: &str) -> Result<Option<(Digest, Option<String>)>, EngineError> {
    let (name, back) = match word.rsplit_once('~') {
        Some((name, back)) => {
            let bad = || Failure::user(format!("`{word}`: after ~ comes a number, as in {name}~1"));
            (name, back.parse::<usize>().map_err(|_| bad())?)
        }
        None => (word, 0),
    };
    let label = Label::new(name);
    let mut keys: Vec<Digest> = engine.state(&label)?.map(|state| state.key).into_iter().collect();
    let runs = engine.record.runs(&label, 1000)?;
    keys.extend(runs.iter().filter(|run| run.outcome == "built").map(|run| run.key));
    keys.dedup();
    if let Some(key) = keys.get(back) {
        return Ok(Some((*key, Some(name.to_owned()))));
    }
    if engine.plan().find(name).is_none() && keys.is_empty() {
        return Ok(None);
    }
    let failure = match keys.len() {
        0 => Failure::user(format!("{name} has no key yet")).help(format!("`effai build {name}` first")),
        n => Failure::user(format!("{name} has {}, so there is no {word}", crate::util::text::count(n, "key")))
            .help(format!("`effai log {name}` lists its runs")),
    };
    Err(failure.into())
}

fn of_digits(engine: &Engine, word: &str) -> Result<(Digest, Option<String>), EngineError> {
    let digits = word.to_ascii_lowercase();
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        // Neither a label that ran nor digits: say which label is near.
        engine.select(std::slice::from_ref(&word.to_owned()), &[])?;
        return Err(Failure::user(format!("`{word}` is neither a label nor the digits of a key")).into());
    }
    if digits.len() < DIGITS_MIN {
        return Err(Failure::user(format!("`{word}` is too short for a key, {DIGITS_MIN} digits are the least")).into());
    }
    let mut keys = engine.record.keys_with(&digits)?;
    keys.extend(engine.store.index.keys_with(&digits)?);
    keys.sort_unstable();
    keys.dedup();
    match keys[..] {
        [key] => {
            let label = match engine.record.label_of_key(&key)? {
                Some(label) => Some(label),
                None => engine.store.index.get(&key)?.map(|row| row.label),
            };
            Ok((key, label))
        }
        [] => Err(Failure::user(format!("no key begins with {digits}")).help("`effai log LABEL` shows keys").into()),
        _ => {
            let some: Vec<String> = keys.iter().take(5).map(|key| key.to_string()[..16].to_owned()).collect();
            let message = format!("{} keys begin with {digits}", keys.len());
            Err(Failure::user(message).help(format!("give more digits: {}", some.join(", "))).into())
        }
    }
}
