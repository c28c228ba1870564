//! The projects that use a store: one small file each, which holds the project's path. Collection asks them what
//! they stand on.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Hold, Store};
use crate::fingerprint::Digest;
use crate::util::fs::{self, FsError};

/// What somebody stands on: collection keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Who, for people: a project's directory.
    pub who: String,
    /// The artifacts.
    pub artifacts: Vec<Digest>,
}

impl Store {
    /// Notes that a project uses this store, and keeps its blobs in place while a build runs.
    pub fn enter(&self, root: &Path) -> Result<Hold, FsError> {
        let hold = self.gate.hold()?;
        self.register(root)?;
        Ok(hold)
    }

    /// Notes that a project uses this store.
    pub fn register(&self, root: &Path) -> Result<(), FsError> {
        let path = self.users_dir().join(Digest::of(root.as_os_str().as_bytes()).to_string());
        // Compared and not only looked for: a power cut may leave the name without the bytes.
        let is_known = fs::read(&path).is_ok_and(|bytes| bytes == root.as_os_str().as_bytes());
        if is_known { Ok(()) } else { fs::write_atomic(&path, root.as_os_str().as_bytes()) }
    }

    /// The projects that have built with this store and are still there.
    pub fn users(&self) -> Result<Vec<PathBuf>, FsError> {
        let mut users = Vec::new();
        for path in fs::list(&self.users_dir())? {
            let root = PathBuf::from(OsStr::from_bytes(&fs::read(&path)?));
            // A file that a kill left beside its name, or a power cut under it, does not hold the path it is named for.
            let is_whole = path.ends_with(Digest::of(root.as_os_str().as_bytes()).to_string());
            if is_whole && root.join("effai.kdl").exists() {
                users.push(root);
            }
        }
        users.sort();
        Ok(users)
    }

    pub(super) fn users_dir(&self) -> PathBuf {
        self.root.join("projects")
    }
}
