//! What ended and is not written down yet.
//!
//! One sync and two transactions for many actions instead of for each: a cold build of ten thousand small commands
//! spends its time in the commands. A power cut or a kill loses at most the last second's actions, which run again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::checkpoints;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::plan::Label;
use crate::record::{ActionRow, Happened, TargetState};
use crate::store::{BlobEvidence, KeyLock, KeyRow, Placed};

/// How long anything waits to be written down.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How many actions wait.
const ACTIONS_MAX: usize = 512;

#[derive(Default)]
pub(super) struct Batch {
    happened: Happened,
    keys: Vec<(Digest, KeyRow)>,
    artifacts: HashMap<Digest, Digest>,
    blobs: Vec<BlobEvidence>,
    /// Keys whose artifacts were taken from the store.
    used: Vec<Digest>,
    /// Held until the index names their keys.
    locks: Vec<KeyLock>,
    since: Option<Instant>,
}

impl Batch {
    /// An action that made its artifact; `shared` is left out where other projects must not find it.
    pub(super) fn built(
        &mut self,
        label: Label,
        state: TargetState,
        shared: Option<KeyRow>,
        blobs: &[BlobEvidence],
        row: ActionRow,
        lock: KeyLock,
    ) {
        // What took long to make is not put at risk for long.
        let long_ago = Duration::from_millis(row.wall_ms).min(WAIT_MAX);
        let since = self.since.get_or_insert_with(Instant::now);
        *since = since.checked_sub(long_ago).unwrap_or(*since);
        self.artifacts.insert(state.key, state.artifact);
        if let Some(shared) = shared {
            self.keys.push((state.key, shared));
        }
        self.happened.targets.push((label, state));
        self.blobs.extend_from_slice(blobs);
        self.happened.actions.push(row);
        self.locks.push(lock);
    }

    /// A key whose artifact came from a remote.
    pub(super) fn fetched(&mut self, key: Digest, row: KeyRow, blobs: &[BlobEvidence]) {
        self.since.get_or_insert_with(Instant::now);
        self.artifacts.insert(key, row.artifact);
        self.keys.push((key, row));
        self.blobs.extend_from_slice(blobs);
    }

    /// A target whose artifact some store had.
    pub(super) fn restored(&mut self, label: Label, state: TargetState) {
        self.since.get_or_insert_with(Instant::now);
        self.used.push(state.key);
        self.happened.targets.push((label, state));
    }

    /// An action that made nothing.
    pub(super) fn action(&mut self, row: ActionRow) {
        self.since.get_or_insert_with(Instant::now);
        self.happened.actions.push(row);
    }

    /// Files that now lie in `out/`.
    pub(super) fn placed(&mut self, label: Label, artifact: Digest, placed: Vec<Placed>) {
        self.since.get_or_insert_with(Instant::now);
        self.happened.outputs.push((label, artifact, placed));
    }

    /// The artifact of a key that was built and is not written down yet.
    pub(super) fn artifact(&self, key: &Digest) -> Option<Digest> {
        self.artifacts.get(key).copied()
    }

    pub(super) fn is_due(&self) -> bool {
        self.happened.actions.len() >= ACTIONS_MAX || self.since.is_some_and(|s| s.elapsed() >= WAIT_MAX)
    }

    /// Writes everything down: blobs to the disk, then keys, then what happened; then the locks go.
    pub(super) fn flush(&mut self, engine: &mut Engine) -> Result<(), Failure> {
        if self.since.take().is_none() {
            return Ok(());
        }
        engine.begin_changes();
        engine.store.blobs.sync(self.blobs.iter().map(|(digest, ..)| digest))?;
        if !self.keys.is_empty() || !self.blobs.is_empty() {
            engine.store.index.put(&self.keys, &self.blobs)?;
        }
        engine.store.index.touch(&self.used);
        engine.record.put(&self.happened)?;
        checkpoints::forget(&engine.root, self.artifacts.keys())?;
        *self = Self::default();
        Ok(())
    }
}
