//! Where artifacts live, by digest. It knows digests, bytes and names, and never what a target is.
//!
//! ```text
//! CACHE/v1/CACHEDIR.TAG      backup programs pass it over
//! CACHE/v1/blobs/ab/cdef...  content by blake3, read-only
//! CACHE/v1/packs/ab/cdef...  blobs that share bytes with whole ones (`pack.rs`), read-only
//! CACHE/v1/index.db          keys and blob evidence (cache-schema/store)
//! CACHE/v1/locks/KEY         one build of a key at a time, across processes
//! CACHE/v1/projects/         who uses the store: what they stand on is kept
//! CACHE/v1/gate              held by builds, closed while blobs are deleted
//! CACHE/v1/incoming/         blobs being written; renamed into place
//! ```
//!
//! Invariants: a blob is complete from the moment it has its name; a key in the index names an artifact
//! whose blobs were all in place before the row was written. A reader that finds otherwise (a disk error,
//! a hand that reached in) reports the blob missing, and the target that needs it runs again.

mod arrival;
mod blobs;
mod gate;
mod index;
mod lock;
mod materialise;
mod pack;
mod packing;
mod projects;
mod prune;
mod tree;
mod verify;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use arrival::{Arrival, Arrived};
pub use blobs::{Blobs, Ingested, StoreError};
pub use gate::{Closed, Gate, Hold};
pub use index::{BlobEvidence, Index, KeyRow, KeyUse, Usage};
pub use lock::KeyLock;
pub use materialise::{Placed, Purpose};
pub use projects::Standing;
pub use prune::{Limits, Mode, Packed, Pruned};
pub use tree::{BadTree, Entry, Form, Tree};
pub use verify::{Checked, Fault, Problem};
pub use walk::{Blob, Held};

use crate::util::fs::{self, FsError};

/// Raised when the layout on disk changes; a newer layout is a new directory.
const LAYOUT: &str = "v1";

const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
# This directory is a cache of effai. See https://bford.info/cachedir/\n";

/// A store; a clone is the same store, for another thread.
#[derive(Clone)]
pub struct Store {
    /// Content; may be shared between threads.
    pub blobs: Blobs,
    /// Keys and evidence.
    pub index: Index,
    /// Held by whoever uses blobs.
    pub gate: Gate,
    /// Locks of keys.
    spent: Arc<lock::Spent>,
    root: PathBuf,
}

impl Store {
    /// The store below `cache`; nothing is looked at before it is asked.
    pub fn at(cache: &Path) -> Self {
        let root = cache.join(LAYOUT);
        let (blobs, index, gate) = (Blobs::new(&root), Index::at(&root.join("index.db")), Gate::new(&root));
        Self { blobs, index, gate, spent: Arc::new(lock::Spent::new(root.join("locks"))), root }
    }

    /// Makes the directory and marks it as a cache, before the first blob is written.
    pub fn mark(&self) -> Result<(), FsError> {
        let tag = self.root.join("CACHEDIR.TAG");
        if tag.exists() { Ok(()) } else { fs::write_atomic(&tag, CACHEDIR_TAG.as_bytes()) }
    }

    /// The directory of this layout.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
