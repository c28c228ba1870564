//! The file system, with errors that name the path and the attempt. The only module that calls
//! `std::fs` to write (`.clippy.toml` holds the others to it).
#![expect(clippy::disallowed_methods, reason = "the wrappers themselves")]

use std::fs::{self, DirBuilder, File, Permissions, set_permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::fault;
use crate::failure::Failure;

/// An attempt on a path that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {}: {source}", path.display())]
pub struct FsError {
    /// `read`, `write`, `rename`...
    pub attempt: &'static str,
    /// The path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FsError {
    /// Whether the disk has no room.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the path simply is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }
}

impl From<FsError> for Failure {
    fn from(error: FsError) -> Self {
        let failure = Failure::environment(error.to_string());
        match error.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failure.help(
                "the disk is full: free some space, `effai cache size` shows what the store holds; what was finished is kept",
            ),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                failure.help("check who owns the path and whether it is writable")
            }
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                failure.help("something else lies there: move it away, effai makes what it needs anew")
            }
            _ => failure,
        }
    }
}

/// Gives an I/O result its path and attempt.
pub fn at<T>(attempt: &'static str, path: &Path, result: io::Result<T>) -> Result<T, FsError> {
    result.map_err(|source| FsError { attempt, path: path.to_owned(), source })
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, FsError> {
    at("read", path, fs::read(path))
}

/// Reads a whole text file.
pub fn read_text(path: &Path) -> Result<String, FsError> {
    at("read", path, fs::read_to_string(path))
}

/// What lies in a directory, by name: the names, and whether each is a directory. Names that are no text are left out.
pub fn entries(path: &Path) -> Result<Vec<(String, bool)>, FsError> {
    let mut names = Vec::new();
    for entry in at("list", path, fs::read_dir(path))? {
        let entry = at("list", path, entry)?;
        if let Ok(name) = entry.file_name().into_string() {
            names.push((name, entry.path().is_dir()));
        }
    }
    names.sort();
    Ok(names)
}

/// Makes a directory that only its owner can look into, and the directories above it.
pub fn create_private_dir(path: &Path) -> Result<(), FsError> {
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    at("create", path, made.and_then(|()| set_permissions(path, Permissions::from_mode(0o700))))
}

/// Lets only the owner read and write what is at a path.
pub fn make_private(path: &Path) -> Result<(), FsError> {
    at("set the permissions of", path, set_permissions(path, Permissions::from_mode(0o600)))
}

/// Takes away everybody's leave to execute a file.
pub fn make_plain(path: &Path) -> Result<(), FsError> {
    at("set the permissions of", path, set_permissions(path, Permissions::from_mode(0o644)))
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File, FsError> {
    at("open", path, File::open(path))
}

/// Creates a file for writing, and the directories above it.
pub fn create(path: &Path) -> Result<File, FsError> {
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    fault::step();
    at("create", path, File::create(path))
}

/// Makes a file's bytes, or a directory's names, last through a power cut.
pub fn sync(path: &Path) -> Result<(), FsError> {
    at("sync", path, open(path)?.sync_all())
}

/// Writes a whole file in place, and the directories above it. For directories nobody else reads yet;
/// elsewhere [`write_atomic`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    fault::step();
    at("write", path, File::create(path).and_then(|mut file| pour(&mut file, bytes)))
}

/// Writes beside and renames into place: a reader sees the old or the new bytes, never a part. After a power cut it may
/// see neither: what must be there then is synced by its caller.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    write_atomic_mode(path, bytes, 0o600)
}

/// As [`write_atomic`], with these permissions from the moment the file has its name.
pub fn write_atomic_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
    filled(path, mode, |file| pour(file, bytes))
}

/// As [`write_atomic`], of bytes that need not be in memory at once; `fill` gives them to [`pour`].
pub fn write_atomic_with(path: &Path, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FsError> {
    filled(path, 0o600, fill)
}

fn filled(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), FsError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    create_dir_all(parent)?;
    fault::step();
    let mut file = at("create a file in", parent, tempfile::NamedTempFile::new_in(parent))?;
    at("write", path, fill(file.as_file_mut()))?;
    let mode = fs::Permissions::from_mode(mode);
    at("set the mode of", path, file.as_file().set_permissions(mode))?;
    fault::step();
    at("rename into", path, file.persist(path).map_err(|e| e.error))?;
    fault::step();
    Ok(())
}

/// Writes all bytes; for the crash tests there is a step with half of them written.
pub fn pour(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let bytes = if cfg!(debug_assertions) {
        fault::step();
        let (begin, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(begin)?;
        fault::step();
        rest
    } else {
        bytes
    };
    file.write_all(bytes)
}

/// Replaces a file that is there, as [`write_atomic`] does, and keeps its mode; a link stays a link to the new bytes.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    let path = at("find", path, path.canonicalize())?;
    let mode = at("read", &path, path.metadata())?.permissions();
    let parent = path.parent().unwrap_or(Path::new("/"));
    let mut file = at("create a file in", parent, tempfile::NamedTempFile::new_in(parent))?;
    at("write", &path, file.write_all(bytes))?;
    at("set the mode of", &path, file.as_file().set_permissions(mode))?;
    at("rename into", &path, file.persist(&path).map_err(|e| e.error))?;
    Ok(())
}

/// Creates a directory and those above it.
pub fn create_dir_all(path: &Path) -> Result<(), FsError> {
    fault::step();
    at("create directory", path, fs::create_dir_all(path))
}

/// The paths in a directory, sorted; none if it is not there.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, FsError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => at("list", dir, other)?,
    };
    let mut paths =
        entries.map(|entry| at("list", dir, entry.map(|e| e.path()))).collect::<Result<Vec<_>, FsError>>()?;
    paths.sort();
    Ok(paths)
}

/// Removes a directory and all below it; one that is not there is fine.
pub fn remove_dir_all(path: &Path) -> Result<(), FsError> {
    fault::step();
    #[cfg(debug_assertions)]
    if fault::is_armed() {
        remove_entries(path);
    }
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => at("remove", path, other),
    }
}

/// Removes all that lies in a directory, which stays.
pub fn empty_dir(path: &Path) -> Result<(), FsError> {
    for entry in at("list", path, fs::read_dir(path))? {
        let entry = at("list", path, entry)?;
        let is_dir = at("look at", path, entry.file_type())?.is_dir();
        let path = entry.path();
        if is_dir { remove_dir_all(&path)? } else { remove_file(&path)? }
    }
    Ok(())
}

/// What lies in a directory, one by one, each with a step before it.
#[cfg(debug_assertions)]
fn remove_entries(dir: &Path) {
    for path in list(dir).unwrap_or_default() {
        if path.is_dir() && !path.is_symlink() {
            remove_entries(&path);
        }
        fault::step();
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
}

/// Removes a file; one that is not there is fine.
pub fn remove_file(path: &Path) -> Result<(), FsError> {
    fault::step();
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => at("remove", path, other),
    }
}

/// Whether the disk that holds a path has no room left to speak of.
pub fn is_full(path: &Path) -> bool {
    const ROOM_BYTES_MIN: u64 = 64 << 10;
    rustix::fs::statvfs(path).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) < ROOM_BYTES_MIN)
}

/// Waits until nobody holds the lock of a file, or it is not there; but not for ever.
pub fn wait_unlocked(path: &Path) {
    const PATIENCE: Duration = Duration::from_secs(3);
    const LOOK_AGAIN: Duration = Duration::from_millis(2);
    let begin = Instant::now();
    while File::open(path).is_ok_and(|file| file.try_lock_shared().is_err()) && begin.elapsed() < PATIENCE {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Renames within a file system.
pub fn rename(from: &Path, to: &Path) -> Result<(), FsError> {
    fault::step();
    at("rename", from, fs::rename(from, to))
}

/// Copies a file's bytes and permissions.
pub fn copy(from: &Path, to: &Path) -> Result<u64, FsError> {
    if let Some(parent) = to.parent() {
        create_dir_all(parent)?;
    }
    copy_over(from, to)
}

/// Copies a file's bytes and permissions into a directory that is there.
pub fn copy_over(from: &Path, to: &Path) -> Result<u64, FsError> {
    fault::step();
    fs::copy(from, to).map_err(|source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            FsError { attempt: "write a copy to", path: to.to_owned(), source }
        }
        _ => FsError { attempt: "copy", path: from.to_owned(), source },
    })
}
