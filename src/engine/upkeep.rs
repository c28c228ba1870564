//! What the store's upkeep has to know of projects: what they stand on, and how one is told that something is gone.

use std::path::Path;

use super::{Engine, EngineError};
use crate::event::Event;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::lock::history;
use crate::record::Record;
use crate::store::{Limits, Pruned, Standing};
use crate::util::fs;
use crate::util::text::parse_bytes;

impl Engine {
    /// Reads the databases of the store and of every project that uses it, and holds their parts against each other.
    pub fn check_databases(&self) -> Result<(), EngineError> {
        self.store.register(&self.root)?;
        self.store.index.check()?;
        for root in self.store.users()? {
            if let Some(record) = record(&root) {
                record.check()?;
            }
        }
        Ok(())
    }

    /// What every project that uses the store stands on, this one among them; and what the locks of their branches and tags
    /// name, where that counts.
    pub fn standing(&self, with_locks: bool) -> Result<Vec<Standing>, Failure> {
        self.store.register(&self.root)?;
        let mut standing = Vec::new();
        for root in self.store.users()? {
            if let Some(record) = record(&root) {
                let mut artifacts = record.artifacts()?;
                if with_locks {
                    artifacts.extend(history::artifacts(&root));
                }
                standing.push(Standing { who: root.display().to_string(), artifacts });
            }
        }
        Ok(standing)
    }

    /// Prunes the store to the size that the project gives it, where it has grown past that. What a project stands on
    /// stays, and where others build nothing is done: the next build looks again. Gives what there is to tell.
    pub fn prune_to_size(&self) -> Result<Option<Event>, Failure> {
        let size = self.settings().cache_size.as_deref();
        let Some(bytes_max) = size.and_then(|size| parse_bytes(size).ok()) else { return Ok(None) };
        if self.store.index.bytes()? <= bytes_max {
            return Ok(None);
        }
        let limits = Limits { bytes_max: Some(bytes_max), used_since: None };
        let pruned = self.store.try_prune(&limits, &mut || self.standing(true))?;
        let tell = |p: Pruned| Event::Pruned { blobs: p.blobs, bytes: p.bytes, bytes_left: p.bytes_left, bytes_max };
        Ok(pruned.map(tell))
    }

    /// Lets every project that uses the store forget artifacts: the next build makes them anew. Only while the
    /// store's gate is closed: nobody builds then.
    pub fn forget_artifacts(&self, artifacts: &[Digest]) -> Result<(), EngineError> {
        if artifacts.is_empty() {
            return Ok(());
        }
        self.store.register(&self.root)?;
        for root in self.store.users()? {
            let Some(record) = record(&root) else { continue };
            // As a build does: the state goes before the record changes.
            for kept in fs::list(&root.join(".effai/plan"))? {
                if kept.extension().is_some_and(|e| e == "state") {
                    fs::remove_file(&kept)?;
                }
            }
            record.forget_artifacts(artifacts)?;
        }
        Ok(())
    }
}

fn record(root: &Path) -> Option<Record> {
    let path = root.join(".effai/effai.db");
    path.exists().then(|| Record::at(&path))
}
