//! Who may use the store while blobs are deleted.
//!
//! A build that has anything to do *holds* the gate from its first look at the store to its last row: in between
//! nothing on disk says which blobs it goes by. Collection and repair *close* it: they wait for all holds of all
//! processes, and new ones wait for them. The lock is the kernel's (`flock`), so it ends with its process.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::util::fs::{self, FsError};

/// The gate of one store.
#[derive(Clone, Debug)]
pub struct Gate {
    path: PathBuf,
}

/// While this lives no blob is deleted.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

/// While this lives nobody holds the gate.
#[derive(Debug)]
pub struct Closed {
    _file: File,
}

impl Gate {
    pub(super) fn new(root: &Path) -> Self {
        Self { path: root.join("gate") }
    }

    /// Holds the gate; waits while it is closed.
    pub fn hold(&self) -> Result<Hold, FsError> {
        let file = self.open()?;
        fs::at("lock", &self.path, file.lock_shared())?;
        Ok(Hold { _file: file })
    }

    /// Closes the gate; calls `waiting` once if others hold it. Never while this process holds it itself.
    pub fn close(&self, waiting: &mut dyn FnMut()) -> Result<Closed, FsError> {
        if let Some(closed) = self.try_close()? {
            return Ok(closed);
        }
        waiting();
        let file = self.open()?;
        fs::at("lock", &self.path, file.lock())?;
        Ok(Closed { _file: file })
    }

    /// Closes the gate if nobody holds it.
    pub fn try_close(&self) -> Result<Option<Closed>, FsError> {
        let file = self.open()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Closed { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(FsError { attempt: "lock", path: self.path.clone(), source }),
        }
    }

    fn open(&self) -> Result<File, FsError> {
        if let Some(root) = self.path.parent() {
            fs::create_dir_all(root)?;
        }
        let mut options = std::fs::OpenOptions::new();
        fs::at("open", &self.path, options.read(true).write(true).create(true).truncate(false).open(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn closing_waits_for_holds_and_keeps_new_ones_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let gate = Gate::new(dir.path());
        let hold = gate.hold().expect("held");
        drop(gate.hold().expect("holds do not exclude each other"));
        assert!(gate.try_close().expect("tried").is_none());
        let (said, heard) = mpsc::channel();
        let closer = std::thread::spawn({
            let gate = gate.clone();
            move || {
                let closed = gate.close(&mut || said.send("waits").expect("heard")).expect("closed");
                said.send("closed").expect("heard");
                closed
            }
        });
        assert_eq!(heard.recv().expect("said"), "waits");
        drop(hold);
        assert_eq!(heard.recv().expect("said"), "closed");
        let closed = closer.join().expect("no panic");
        let other = fs::open(&dir.path().join("gate")).expect("opened");
        assert!(other.try_lock_shared().is_err(), "nobody holds a closed gate");
        drop(closed);
        drop(gate.hold().expect("held"));
    }
}
