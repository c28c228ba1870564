//! What the system keeps in memory of files that were read lately: the page cache.

use std::path::Path;

use super::fs::{self, FsError};

/// Has the system forget what it holds of a file, so that it is read from the disk next. No rights are needed, but a file system may
/// not do it, and not say so either: [`fetched_bytes`] tells what was read from the disk then.
#[cfg(target_os = "linux")]
pub fn forget(path: &Path) -> Result<(), FsError> {
    use rustix::fs::{Advice, fadvise, fdatasync};

    let file = fs::open(path)?;
    // What is not on the disk yet is not forgotten.
    let _ = fdatasync(&file);
    fs::at("advise on", path, fadvise(&file, 0, None, Advice::DontNeed).map_err(Into::into))
}

/// Other systems have no way to.
#[cfg(not(target_os = "linux"))]
pub fn forget(path: &Path) -> Result<(), FsError> {
    fs::open(path).map(drop)
}

/// Bytes that the system has fetched from disks for this process so far, what it read ahead included; none where it does not say.
pub fn fetched_bytes() -> Option<u64> {
    let counts = fs::read_text("/proc/self/io".as_ref()).ok()?;
    counts.lines().find_map(|line| line.strip_prefix("read_bytes:"))?.trim().parse().ok()
}

/// Whether a file that was to be forgotten is fetched again when it is read: tried with its first byte. An empty one is never.
pub fn is_forgotten(path: &Path) -> Result<bool, FsError> {
    use std::io::Read;

    forget(path)?;
    let before = fetched_bytes();
    let read = fs::at("read", path, fs::open(path)?.read(&mut [0]))?;
    Ok(read > 0 && fetched_bytes().zip(before).is_some_and(|(now, before)| now > before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_is_read_again_as_it_was() {
        let dir = tempfile::tempdir().expect("made");
        for size in [0, 1, 1 << 20] {
            let path = dir.path().join(size.to_string());
            let bytes: Vec<u8> = (0..size).map(|i: u32| i as u8).collect();
            fs::write(&path, &bytes).expect("written");
            // Whether it is forgotten is the file system's to say, but of nothing there is nothing to fetch.
            let is_forgotten = is_forgotten(&path).expect("it is there");
            assert!(!is_forgotten || (size > 0 && cfg!(target_os = "linux")));
            assert_eq!(fs::read(&path).expect("read"), bytes);
        }
        assert!(forget(&dir.path().join("none")).is_err());
    }
}
