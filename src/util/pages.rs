//! What the system keeps in memory of files that were read lately: the page cache.

use std::path::Path;

use super::fs::{self, FsError};

/// How much of what was to be forgotten is still in memory, by looks at some places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Places that were looked at.
    pub looked: u64,
    /// Of them, those that lay in memory.
    pub found: u64,
}

impl Left {
    /// With another file's.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { looked: self.looked + other.looked, found: self.found + other.found }
    }

    /// Whether nearly nothing is left. A look has the system read the page, and finds it where that was quick: now and then
    /// one is found that was gone.
    pub fn is_nothing(self) -> bool {
        self.found < self.looked && self.found <= 1 + self.looked / 8
    }
}

/// Has the system forget what it holds of a file, so that it is read from the disk next; and looks. No rights are needed, but a
/// file system may not do it, and not say so either.
#[cfg(target_os = "linux")]
pub fn forget(path: &Path) -> Result<Left, FsError> {
    use std::io::IoSliceMut;

    use rustix::fs::{Advice, fadvise, fdatasync};
    use rustix::io::{Errno, ReadWriteFlags, preadv2};

    /// Places of a file at most, and how far apart they are at least: not in one page.
    const PLACES: u64 = 64;
    const APART: u64 = 1 << 16;

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
    let looked = if size == 0 { 0 } else { (size / APART).clamp(1, PLACES) };
    let found = (0..looked).filter(|i| !is_gone(i * size / looked)).count() as u64;
    advise(Advice::DontNeed)?;
    Ok(Left { looked, found })
}

/// Other systems have no way to.
#[cfg(not(target_os = "linux"))]
pub fn forget(path: &Path) -> Result<Left, FsError> {
    fs::open(path).map(|_| Left { looked: 1, found: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_is_read_again_as_it_was() {
        let dir = tempfile::tempdir().expect("made");
        for (size, places) in [(0, 0), (1, 1), (100, 1), (1 << 20, 16), (1 << 23, 64)] {
            let path = dir.path().join(size.to_string());
            let bytes: Vec<u8> = (0..size).map(|i: u32| i as u8).collect();
            fs::write(&path, &bytes).expect("written");
            // Whether it is forgotten is the file system's to say.
            let left = forget(&path).expect("it is there");
            assert!(left.found <= left.looked && (cfg!(not(target_os = "linux")) || left.looked == places), "{left:?}");
            assert_eq!(fs::read(&path).expect("read"), bytes);
        }
        assert!(forget(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_few_that_are_found_are_nothing() {
        let of = |found, looked| Left { looked, found }.is_nothing();
        assert_eq!([of(0, 1), of(1, 3), of(9, 64), of(5, 40)], [true; 4]);
        assert_eq!([of(0, 0), of(1, 1), of(2, 3), of(10, 64)], [false; 4]);
    }
}
