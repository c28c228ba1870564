//! What the system keeps in memory of files that were read lately: the page cache.

use std::path::Path;

use super::fs::{self, FsError};

/// Places of a file that are looked at, to know whether it was forgotten, and how far apart they are at least: a look has the
/// system read the page again, in which the next must not lie.
#[cfg(target_os = "linux")]
const LOOKED_AT: u64 = 64;
#[cfg(target_os = "linux")]
const APART: u64 = 1 << 16;

/// Has the system forget what it holds of a file, so that it is read from the disk next; whether it did. No rights are needed, but a
/// file system may not do it, and not say so either.
#[cfg(target_os = "linux")]
pub fn forget(path: &Path) -> Result<bool, FsError> {
    use std::io::IoSliceMut;

    use rustix::fs::{Advice, fadvise, fdatasync};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    let file = fs::open(path)?;
    let advise = |advice| fs::at("advise on", path, fadvise(&file, 0, None, advice).map_err(Into::into));
    // What is not on the disk yet is not forgotten.
    let _ = fdatasync(&file);
    advise(Advice::DontNeed)?;
    // Else a look would read more than it looks at.
    advise(Advice::Random)?;
    let size = fs::at("look at", path, file.metadata())?.len();
    let is_gone = |at: u64| {
        let mut byte = [0];
        matches!(preadv2(&file, &mut [IoSliceMut::new(&mut byte)], at, ReadWriteFlags::NOWAIT), Err(Errno::AGAIN))
    };
    let places = (size / APART).clamp(1, LOOKED_AT);
    let gone = size == 0 || (0..places).all(|i| is_gone(i * size / places));
    advise(Advice::DontNeed)?;
    Ok(gone)
}

/// Other systems have no way to.
#[cfg(not(target_os = "linux"))]
pub fn forget(path: &Path) -> Result<bool, FsError> {
    fs::open(path).map(|_| false)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_is_read_again_as_it_was() {
        let dir = tempfile::tempdir().expect("made");
        for size in [0, 1, 100, 1 << 20] {
            let path = dir.path().join(size.to_string());
            let bytes: Vec<u8> = (0..size).map(|i: u32| i as u8).collect();
            fs::write(&path, &bytes).expect("written");
            // Whether it is forgotten is the file system's to say.
            forget(&path).expect("it is there");
            assert_eq!(fs::read(&path).expect("read"), bytes);
        }
        assert!(forget(&dir.path().join("none")).is_err());
    }
}
