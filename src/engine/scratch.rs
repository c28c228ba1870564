//! `.effai/scratch`: where actions work. What builds left there that were killed goes when the next one begins.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::Engine;
use crate::action::guard;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::plan::Label;
use crate::util::fs::{self, FsError};

/// While this lives nobody clears the project's scratch directories. The lock is the kernel's (`flock`).
#[derive(Debug)]
pub struct Scratch {
    _dir: File,
}

/// The name of an action's directory in `.effai/scratch`.
pub fn scratch_name(label: &Label, key: &Digest) -> String {
    format!("{}-{}", label.as_str().replace('/', "~"), key.short())
}

impl Engine {
    /// The file of this process's guard, which is started if it does not run yet.
    pub fn guard(&self) -> Option<&'static Path> {
        guard::start(&self.guards_dir())
    }

    fn guards_dir(&self) -> PathBuf {
        self.root.join(".effai/guards")
    }

    /// To be held while actions run. Clears what killed builds left, if no other build runs in this project; what a
    /// failed action left stays for a look.
    pub fn enter_scratch(&self) -> Result<Scratch, Failure> {
        let path = self.root.join(".effai/scratch");
        fs::create_dir_all(&path)?;
        let dir = fs::open(&path)?;
        match dir.try_lock() {
            Ok(()) => {
                guard::wait_for_dead(&self.guards_dir())?;
                self.clear_scratch(&path)?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(FsError { attempt: "lock", path, source }.into()),
        }
        fs::at("lock", &path, dir.lock_shared())?;
        Ok(Scratch { _dir: dir })
    }

    fn clear_scratch(&self, scratch: &Path) -> Result<(), Failure> {
        let left = fs::list(scratch)?;
        if !left.is_empty() {
            let failed = self.record.failed()?;
            let kept: Vec<_> = failed.iter().map(|(label, key)| scratch.join(scratch_name(label, key))).collect();
            for path in left.iter().filter(|path| !kept.contains(path)) {
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }?;
            }
        }
        // Written beside their names; nobody misses one that was still to be renamed.
        for dir in ["plan", "parsed"] {
            for path in fs::list(&self.root.join(".effai").join(dir)).unwrap_or_default() {
                if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp")) {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }
}
