//! Remembered digests of files, and when they may be believed.
//!
//! A file's digest is remembered with its size, modification time, change time and inode. It is believed
//! when all four agree and the file was not written within the clock's grain of the reading (git's "racy"
//! rule: a write in the same tick as the hash leaves no trace). Everything else is hashed again.

use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode};
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

    #[expect(clippy::unnecessary_cast, reason = "the fields' types differ between systems")]
    fn from_system(stat: &rustix::fs::Stat) -> Self {
        Self {
            size: stat.st_size as i64,
            mtime_ns: stat.st_mtime as i64 * 1_000_000_000 + stat.st_mtime_nsec as i64,
            ctime_ns: stat.st_ctime as i64 * 1_000_000_000 + stat.st_ctime_nsec as i64,
            inode: stat.st_ino as i64,
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

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A plain file.
    File {
        /// Anybody may execute it.
        executable: bool,
    },
    /// A directory, or something that is not read.
    Other,
}

impl Form {
    fn of(mode: RawMode) -> Self {
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Form::File { executable: mode & 0o111 != 0 },
            _ => Form::Other,
        }
    }
}

/// A directory that is looked into by many paths. Each look begins there and not at the file system's root, which
/// saves the kernel most of the way: two thirds of the cost of looking at a hundred thousand files.
#[derive(Debug)]
pub struct Place<'a> {
    path: &'a Path,
    handle: Option<OwnedFd>,
}

impl<'a> Place<'a> {
    /// Opens a directory. Where that fails, looks go by whole paths.
    pub fn open(path: &'a Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self { path, handle: rustix::fs::open(path, flags, Mode::empty()).ok() }
    }

    /// What is at a path below it, following links; none where nothing can be seen.
    pub fn look(&self, path: &Path) -> Option<Stat> {
        self.look_whole(path).map(|(stat, _)| stat)
    }

    /// What is at a path below it and of which form, following links; none where nothing can be seen.
    pub fn look_whole(&self, path: &Path) -> Option<(Stat, Form)> {
        // An empty path is the directory itself.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match &self.handle {
            Some(handle) => {
                let stat = rustix::fs::statat(handle, path, AtFlags::empty()).ok()?;
                Some((Stat::from_system(&stat), Form::of(stat.st_mode)))
            }
            None => {
                let metadata = self.path.join(path).metadata().ok()?;
                Some((Stat::of(&metadata), Form::of(metadata.mode() as RawMode)))
            }
        }
    }

    /// What is at a path below it; of a link, the link itself.
    pub fn look_at_link(&self, path: &Path) -> Option<Stat> {
        match &self.handle {
            Some(handle) => {
                rustix::fs::statat(handle, path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|s| Stat::from_system(&s))
            }
            None => self.path.join(path).symlink_metadata().ok().map(|m| Stat::of(&m)),
        }
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
