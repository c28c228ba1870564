//! Remembered digests of files, and when they may be believed.
//!
//! A file's digest is remembered with its size, modification time, change time and inode. It is believed
//! when all four agree and the file was not written within the clock's grain of the reading (git's "racy"
//! rule: a write in the same tick as the hash leaves no trace). Everything else is hashed again.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Fact;

/// How close to the reading a write may be and go unnoticed, in ns. Coarse kernel clocks tick every 4 to
/// 10 ms; some network file systems keep two-second stamps.
const GRAIN_NS: i64 = 20_000_000;

/// What the file system says of a file, cheap to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Size in bytes.
    pub size: i64,
    /// Modification time, ns since the epoch.
    pub mtime_ns: i64,
    /// Change time, ns since the epoch.
    pub ctime_ns: i64,
    /// Inode.
    pub inode: i64,
}

impl Stat {
    /// From the file system's answer.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len() as i64,
            mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            ctime_ns: metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec(),
            inode: metadata.ino() as i64,
        }
    }

    /// What is at a path, following links; none where nothing can be seen.
    pub fn at(path: &Path) -> Option<Self> {
        path.metadata().ok().map(|m| Self::of(&m))
    }

    /// Whether a digest read at `read_at_ns`, when the file looked like `then`, is still its digest.
    pub fn proves(&self, then: &Stat, read_at_ns: i64) -> bool {
        self == then && self.mtime_ns.max(self.ctime_ns) + GRAIN_NS < read_at_ns
    }
}

/// One file as it was last read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeenFile {
    /// From the project's root.
    #[serde(with = "crate::util::paths::one")]
    pub path: PathBuf,
    /// How it looked; none where nothing was there.
    pub stat: Option<Stat>,
    /// When it was read, ns since the epoch.
    pub at_ns: i64,
    /// What it is to a manifest.
    pub fact: Fact,
}

impl SeenFile {
    /// Whether this is still what the file is.
    pub fn holds(&self, now: Option<Stat>) -> bool {
        match (&self.stat, now) {
            (Some(then), Some(now)) => now.proves(then, self.at_ns),
            (None, None) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_four_agreeing_numbers_and_an_old_write_are_believed() {
        let file = Stat { size: 3, mtime_ns: 1_000_000_000, ctime_ns: 1_000_000_000, inode: 7 };
        let later = 2_000_000_000;
        assert!(file.proves(&file, later));
        assert!(!Stat { size: 4, ..file }.proves(&file, later));
        assert!(!Stat { mtime_ns: 1, ..file }.proves(&file, later));
        assert!(!Stat { ctime_ns: 1, ..file }.proves(&file, later));
        assert!(!Stat { inode: 8, ..file }.proves(&file, later));
        assert!(!file.proves(&file, 1_000_000_001), "written in the tick of the reading");
    }
}
