//! What lies on a remote.
//!
//! ```text
//! v1/blobs/ab/cdef...      a file of more than 64 KiB, by its digest
//! v1/artifacts/ab/cdef...  a tree by its digest, and behind it its other files
//! v1/keys/ab/cdef...       what a key stands for, in JSON
//! ```
//!
//! An artifact's object begins with a line `effai artifact 1 BYTES`, the length of its tree in bytes; then come the tree as
//! the store writes it, and the contents of its files of 64 KiB and less, each once, in the order of the tree. So the bytes
//! of the object follow from its name, thousands of small files are one request, and each is checked by its own digest.
//! That bound is part of the layout.
//!
//! A key's object may be given fields; readers pass over those that they do not know. Anything else that changes is a new
//! directory beside `v1`: an older effai does not look there, and runs what it does not find.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::fingerprint::{Digest, Manifest};
use crate::store::{Entry, KeyRow, Tree};

const LAYOUT: &str = "v1";

const HEAD: &str = "effai artifact 1 ";

/// No head is longer; what is was damaged.
pub(super) const HEAD_BYTES_MAX: usize = 40;

/// No tree is larger: ten million files.
const TREE_BYTES_MAX: u64 = 1 << 30;

/// Files up to this size lie in their artifact's object.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// A key's object is no larger.
pub(super) const RECORD_BYTES_MAX: u64 = 1 << 20;

/// The path of a blob.
pub(super) fn blob(digest: &Digest) -> String {
    path("blobs", digest)
}

/// The path of an artifact.
pub(super) fn artifact(digest: &Digest) -> String {
    path("artifacts", digest)
}

/// The path of a key.
pub(super) fn key(digest: &Digest) -> String {
    path("keys", digest)
}

fn path(sort: &str, digest: &Digest) -> String {
    let digits = digest.to_string();
    format!("{LAYOUT}/{sort}/{}/{}", &digits[..2], &digits[2..])
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Record {
    /// The artifact.
    pub artifact: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// The kind of the target that made it.
    pub kind: String,
    /// The label it had then; for people.
    pub label: String,
    /// The backend that computed it.
    pub backend: String,
    /// Wall time of the run that made it.
    pub wall_ms: u64,
    /// CPU time of that run.
    pub cpu_ms: u64,
    /// Peak memory of that run.
    pub peak_bytes: u64,
    /// Last value of each metric.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
}

impl Record {
    /// Of a key as the store's index has it.
    pub(super) fn of(row: &KeyRow) -> Self {
        Self {
            artifact: row.artifact,
            size: row.size,
            kind: row.kind.clone(),
            label: row.label.clone(),
            backend: row.backend.clone(),
            wall_ms: row.wall_ms,
            cpu_ms: row.cpu_ms,
            peak_bytes: row.peak_bytes,
            // JSON has no other numbers.
            metrics: row.metrics.iter().filter(|(_, v)| v.is_finite()).map(|(n, v)| (n.clone(), *v)).collect(),
        }
    }

    /// As the store's index has it; its facts are the asker's own, since their digest is the key.
    pub fn into_row(self, manifest: Manifest) -> KeyRow {
        KeyRow {
            artifact: self.artifact,
            kind: self.kind,
            label: self.label,
            manifest,
            metrics: self.metrics,
            size: self.size,
            wall_ms: self.wall_ms,
            cpu_ms: self.cpu_ms,
            peak_bytes: self.peak_bytes,
            backend: self.backend,
        }
    }
}

/// The first line of an artifact's object.
pub(super) fn head(tree_bytes: usize) -> String {
    format!("{HEAD}{tree_bytes}\n")
}

/// The length of the tree that a head tells of.
pub(super) fn read_head(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix(HEAD)?.strip_suffix('\n')?;
    text.parse().ok().filter(|bytes| *bytes as u64 <= TREE_BYTES_MAX)
}

/// The files of a tree that lie in its object, each content once, in order.
pub(super) fn small(tree: &Tree) -> Vec<&Entry> {
    distinct(tree, |entry| entry.size <= SMALL_BYTES_MAX)
}

/// The files of a tree that are objects of their own, likewise.
pub(super) fn large(tree: &Tree) -> Vec<&Entry> {
    distinct(tree, |entry| entry.size > SMALL_BYTES_MAX)
}

fn distinct(tree: &Tree, is_meant: impl Fn(&Entry) -> bool) -> Vec<&Entry> {
    let mut seen = HashSet::new();
    tree.entries().iter().filter(|entry| is_meant(entry) && seen.insert(entry.digest)).collect()
}

/// Bytes of an artifact's object.
pub(super) fn object_bytes(tree: &Tree) -> u64 {
    let bytes = tree.to_bytes().len();
    (head(bytes).len() + bytes) as u64 + small(tree).iter().map(|entry| entry.size).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::store::Form;

    #[test]
    fn paths_and_heads_are_as_they_were() {
        let digest = Digest::of(b"");
        let digits = digest.to_string();
        assert_eq!(key(&digest), format!("v1/keys/{}/{}", &digits[..2], &digits[2..]));
        assert_eq!(head(17), "effai artifact 1 17\n");
        assert_eq!(read_head(b"effai artifact 1 17\n"), Some(17));
        for bad in
            ["effai artifact 1 17", "effai artifact 2 17\n", "effai artifact 1 -1\n", "effai artifact 1 9999999999\n"]
        {
            assert_eq!(read_head(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_content_is_there_once_and_by_its_size_here_or_there() {
        let entry = |path: &str, bytes: &[u8], size| Entry {
            path: PathBuf::from(path),
            form: Form::File,
            digest: Digest::of(bytes),
            size,
        };
        let tree = Tree::new(vec![
            entry("a", b"a", SMALL_BYTES_MAX),
            entry("b", b"a", SMALL_BYTES_MAX),
            entry("c", b"c", SMALL_BYTES_MAX + 1),
            entry("d", b"c", SMALL_BYTES_MAX + 1),
        ]);
        assert_eq!((small(&tree).len(), large(&tree).len()), (1, 1));
        let bytes = tree.to_bytes().len() as u64;
        assert_eq!(object_bytes(&tree), bytes + head(bytes as usize).len() as u64 + SMALL_BYTES_MAX);
    }
}
