//! One build of a key at a time, across processes and projects.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use super::Store;
use crate::fingerprint::Digest;
use crate::util::fs::{self, FsError};

/// Holds a key until dropped. The lock is the kernel's (`flock`): it ends with its holder, however that ends.
#[derive(Debug)]
pub struct KeyLock {
    _file: File,
}

impl Store {
    /// Tries to take a key; if another process has it, says who that is.
    pub fn try_lock(&self, key: &Digest, who: &str) -> Result<Result<KeyLock, String>, FsError> {
        let path: PathBuf = self.root.join("locks").join(key.to_string());
        fs::create_dir_all(path.parent().expect("locks/"))?;
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = fs::at("open", &path, file)?;
        match file.try_lock() {
            Ok(()) => {
                fs::at("write", &path, file.set_len(0).and_then(|()| file.write_all(who.as_bytes())))?;
                Ok(Ok(KeyLock { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = file.rewind();
                let _ = file.read_to_string(&mut holder);
                Ok(Err(if holder.is_empty() { "another build".into() } else { holder }))
            }
            Err(TryLockError::Error(source)) => Err(FsError { attempt: "lock", path, source }),
        }
    }
}
