//! A directory held open: names in it are looked up from there and not from the root, which for ten thousand small
//! files is a good part of the work.
#![expect(clippy::disallowed_methods, reason = "a part of the wrappers of the file system")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, statat};

use super::fs::{FsError, at};

/// Files up to this size are copied through memory: two calls, where the kernel's own copy has more to set up.
const BUFFERED_BYTES_MAX: u64 = 1 << 16;

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    file: File,
    path: PathBuf,
}

/// How a file looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// Size in bytes.
    pub size: u64,
    /// Modification time, ns.
    pub mtime_ns: i64,
}

impl Dir {
    /// Opens a directory.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        Ok(Self { file: at("open", path, File::open(path))?, path: path.to_owned() })
    }

    /// The path of a name in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// How a file looks; a link at its end is not followed.
    pub fn look(&self, name: &Path) -> Result<Looks, FsError> {
        let stat = self.at("look at", name, statat(&self.file, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Into::into))?;
        let mtime_ns = stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64;
        Ok(Looks { size: stat.st_size as u64, mtime_ns })
    }

    /// Gives a file one more name, in another directory.
    pub fn link(&self, name: &Path, to: &Dir, to_name: &Path) -> Result<(), FsError> {
        to.at("link", to_name, linkat(&self.file, name, &to.file, to_name, AtFlags::empty()).map_err(Into::into))
    }

    /// Opens a file for reading.
    pub fn open_file(&self, name: &Path) -> Result<File, FsError> {
        let opened = openat(&self.file, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        self.at("open", name, opened.map(File::from).map_err(Into::into))
    }

    /// Makes a new file with this mode, less what the user's mask takes away.
    pub fn create_file(&self, name: &Path, mode: u32) -> Result<File, FsError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = openat(&self.file, name, flags, Mode::from_raw_mode(mode as _));
        self.at("create", name, made.map(File::from).map_err(Into::into))
    }

    /// Copies a file's `size` bytes to a new file in another directory; says how the copy looks.
    pub fn copy(&self, name: &Path, size: u64, to: &Dir, to_name: &Path, mode: u32) -> Result<Looks, FsError> {
        let mut from = self.open_file(name)?;
        let mut file = to.create_file(to_name, mode)?;
        let copied = if size <= BUFFERED_BYTES_MAX {
            let mut buffer = vec![0; size as usize];
            self.at("copy", name, from.read_exact(&mut buffer))?;
            file.write_all(&buffer)
        } else {
            io::copy(&mut from, &mut file).and_then(|n| match n == size {
                true => Ok(()),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            })
        };
        to.at("write a copy to", to_name, copied)?;
        let metadata = to.at("look at", to_name, file.metadata())?;
        Ok(Looks { size: metadata.len(), mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec() })
    }

    fn at<T>(&self, attempt: &'static str, name: &Path, result: io::Result<T>) -> Result<T, FsError> {
        result.map_err(|source| FsError { attempt, path: self.path(name), source })
    }
}
