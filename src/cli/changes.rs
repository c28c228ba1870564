//! What `explain` and `diff` share: manifests of the past, and who stands behind a changed artifact.

use std::collections::BTreeMap;

use crate::engine::{Engine, EngineError};
use crate::fingerprint::{Digest, Manifest, Reason};
use crate::plan::Label;
use crate::report::why::{Changes, TargetChange};

/// How far a change is followed to what caused it.
const DEPTH_MAX: usize = 4;

/// The facts of a key: from the project's own state, else from the store. None if it failed or was thrown away.
pub(super) fn manifest(engine: &Engine, label: Option<&str>, key: &Digest) -> Result<Option<Manifest>, EngineError> {
    let state = label.map_or(Ok(None), |label| engine.state(&Label::new(label)))?;
    if let Some(state) = state.filter(|state| state.key == *key) {
        return Ok(Some(state.manifest.clone()));
    }
    Ok(engine.store.index.get(key)?.map(|row| row.manifest))
}

/// Sorts reasons and names the targets behind changed artifacts, each with why it gave other bytes.
pub(super) fn changes(engine: &Engine, label: Option<&str>, reasons: &[Reason]) -> Result<Changes, EngineError> {
    followed(engine, label, reasons, DEPTH_MAX)
}

fn followed(engine: &Engine, label: Option<&str>, reasons: &[Reason], depth: usize) -> Result<Changes, EngineError> {
    let mut changes = Changes::of(reasons);
    let index = label.and_then(|label| engine.plan().find(label));
    let names = index.map(|index| engine.labels_of_facts(index)).transpose()?.unwrap_or_default();
    for change in &mut changes.targets {
        change.label = name(engine, &names, change)?;
        if let (Some(label), Some(was), Some(now)) = (&change.label, change.was, change.now)
            && depth > 0
        {
            change.because = because(engine, label, &was, &now, depth - 1)?;
        }
    }
    Ok(changes)
}

fn name(
    engine: &Engine,
    names: &BTreeMap<String, String>,
    change: &TargetChange,
) -> Result<Option<String>, EngineError> {
    if let Some(label) = names.get(&change.fact) {
        return Ok(Some(label.clone()));
    }
    for artifact in [change.now, change.was].iter().flatten() {
        if let Some(label) = engine.record.label_of_artifact(artifact)? {
            return Ok(Some(label));
        }
    }
    Ok(None)
}

/// Why a target gave one artifact and then another: from the facts of the two runs, else as was recorded.
fn because(engine: &Engine, label: &str, was: &Digest, now: &Digest, depth: usize) -> Result<Vec<String>, EngineError> {
    let Some(ran) = engine.record.maker(label, now)? else { return Ok(Vec::new()) };
    if let Some(before) = engine.record.maker(label, was)? {
        let facts = (manifest(engine, Some(label), &before.key)?, manifest(engine, Some(label), &ran.key)?);
        if let (Some(before), Some(after)) = facts {
            let changes = followed(engine, Some(label), &after.reasons(&before), depth)?;
            let same = vec!["it was asked to; its facts are the same and its bytes are not".to_owned()];
            return Ok(if changes.is_empty() { same } else { changes.lines() });
        }
    }
    Ok(ran.reasons)
}
