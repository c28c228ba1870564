//! All blobs at once, and looks at them that change nothing: for collection and verification.

use std::path::PathBuf;

use walkdir::WalkDir;

use super::blobs::{Blobs, StoreError, mtime_ns};
use super::tree::Tree;
use crate::fingerprint::Digest;
use crate::util::fs;

/// A blob's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What its name says.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time, ns.
    pub mtime_ns: i64,
}

impl Blobs {
    /// Every blob, by digest.
    pub fn list(&self) -> Result<Vec<Blob>, StoreError> {
        Ok(self.walk()?.0)
    }

    /// Every blob, and every file among them whose name is not a digest.
    pub(super) fn walk(&self) -> Result<(Vec<Blob>, Vec<PathBuf>), StoreError> {
        let (mut blobs, mut strangers) = (Vec::new(), Vec::new());
        if !self.dir().exists() {
            return Ok((blobs, strangers));
        }
        for entry in WalkDir::new(self.dir()).sort_by_file_name() {
            let entry = match entry {
                Err(e) if e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => continue,
                other => other.map_err(|source| StoreError::Walk { path: self.dir().to_owned(), source })?,
            };
            if entry.file_type().is_dir() {
                continue;
            }
            let path = entry.into_path();
            let name = path.strip_prefix(self.dir()).expect("walked from there").to_string_lossy().replace('/', "");
            let digest = name.parse().ok().filter(|digest| self.path(digest) == path);
            match (digest, path.symlink_metadata()) {
                (Some(digest), Ok(m)) if m.is_file() => {
                    blobs.push(Blob { digest, size: m.len(), mtime_ns: mtime_ns(&m) });
                }
                (_, Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {}
                _ => strangers.push(path),
            }
        }
        Ok((blobs, strangers))
    }

    /// Reads an artifact's tree without putting a damaged one aside.
    pub(super) fn look_at_tree(&self, artifact: &Digest) -> Result<Tree, StoreError> {
        let path = self.path(artifact);
        let bytes =
            fs::read(&path).map_err(|e| if e.is_missing() { StoreError::Missing(*artifact) } else { e.into() })?;
        if Digest::of(&bytes) != *artifact {
            return Err(StoreError::Corrupt { digest: *artifact, path });
        }
        Tree::from_bytes(&bytes).map_err(|source| StoreError::BadTree { digest: *artifact, source })
    }
}
