//! The written form of what a project keeps: frames, each a value, and a digest of all of them at the end. Written and
//! read a frame at a time, so that what a hundred thousand targets left need not lie in memory twice.
//!
//! ```text
//! length (4 bytes) and value (postcard), again and again; blake3 of all that (32 bytes)
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fingerprint::{Digest, Hasher};
use crate::util::fs::{self, FsError};

/// Items of a list in one frame: a few hundred kilobytes of files or targets.
const LIST_FRAME: usize = 4096;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 << 10;

/// A file being written.
pub(super) struct Writer<'a> {
    file: &'a mut File,
    hasher: Hasher,
    bytes: Vec<u8>,
}

/// Writes a file whole or not at all. Gives the digest it ends with.
pub(super) fn write(path: &Path, fill: impl FnOnce(&mut Writer<'_>) -> io::Result<()>) -> Result<Digest, FsError> {
    let mut digest = None;
    fs::write_atomic_with(path, |file| {
        let mut writer = Writer { file, hasher: Hasher::default(), bytes: Vec::with_capacity(2 * WRITE_BYTES) };
        fill(&mut writer)?;
        digest = Some(writer.end()?);
        Ok(())
    })?;
    Ok(digest.expect("it was filled"))
}

impl Writer<'_> {
    /// One frame.
    pub(super) fn value(&mut self, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes = postcard::to_extend(value, std::mem::take(&mut self.bytes)).map_err(io::Error::other)?;
        let length = u32::try_from(self.bytes.len() - at - 4).map_err(io::Error::other)?;
        self.bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        if self.bytes.len() < WRITE_BYTES { Ok(()) } else { self.flush() }
    }

    /// A list, for [`Reader::list`].
    pub(super) fn list<T: Serialize>(&mut self, list: &[T]) -> io::Result<()> {
        self.value(&list.len())?;
        list.chunks(LIST_FRAME).try_for_each(|chunk| self.value(chunk))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hasher.update(&self.bytes);
        fs::pour(self.file, &self.bytes)?;
        self.bytes.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<Digest> {
        self.hasher.update(&self.bytes);
        let digest = self.hasher.finish();
        self.bytes.extend(digest.bytes());
        fs::pour(self.file, &self.bytes)?;
        Ok(digest)
    }
}

/// A file being read. What was read is to be believed once [`Reader::end`] gave its digest.
pub(super) struct Reader {
    file: File,
    hasher: Hasher,
    bytes: Vec<u8>,
}

impl Reader {
    /// None if there is no such file.
    pub(super) fn open(path: &Path) -> Option<Self> {
        Some(Self { file: fs::open(path).ok()?, hasher: Hasher::default(), bytes: Vec::new() })
    }

    fn take(&mut self, length: usize) -> Option<()> {
        self.bytes.clear();
        (&mut self.file).take(length as u64).read_to_end(&mut self.bytes).ok()?;
        (self.bytes.len() == length).then_some(())
    }

    fn frame(&mut self) -> Option<()> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length).ok()?;
        self.take(u32::from_le_bytes(length) as usize)?;
        self.hasher.update(&length);
        self.hasher.update(&self.bytes);
        Some(())
    }

    /// What [`Writer::value`] wrote.
    pub(super) fn value<T: DeserializeOwned>(&mut self) -> Option<T> {
        self.frame()?;
        postcard::from_bytes(&self.bytes).ok()
    }

    /// What [`Writer::list`] wrote.
    pub(super) fn list<T: DeserializeOwned>(&mut self) -> Option<Vec<T>> {
        let count: usize = self.value()?;
        // A damaged count is found out when there are no frames for it.
        let mut list = Vec::with_capacity(count.min(self.file.metadata().ok()?.len() as usize));
        while list.len() < count {
            self.frame()?;
            let mut rest = self.bytes.as_slice();
            let items: usize = read(&mut rest)?;
            if items == 0 {
                return None;
            }
            for _ in 0..items {
                list.push(read(&mut rest)?);
            }
        }
        (list.len() == count).then_some(list)
    }

    /// The digest, if all that was written was read, and is as it was.
    pub(super) fn end(mut self) -> Option<Digest> {
        let digest = self.hasher.finish();
        self.take(32)?;
        let is_all = self.bytes == digest.bytes() && self.file.read(&mut [0]).ok()? == 0;
        is_all.then_some(digest)
    }
}

fn read<'a, T: Deserialize<'a>>(rest: &mut &'a [u8]) -> Option<T> {
    let (value, left) = postcard::take_from_bytes(rest).ok()?;
    *rest = left;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().expect("made");
        let path = dir.path().join("sealed");
        let numbers: Vec<u64> = (0..10_000).map(|n| n * n * n).collect();
        let written = write(&path, |writer| {
            writer.value("a text")?;
            writer.list(&numbers)?;
            writer.list::<u64>(&[])
        });
        let written = written.expect("written");
        let read = || {
            let mut reader = Reader::open(&path)?;
            let read = (reader.value::<String>()?, reader.list::<u64>()?, reader.list::<u64>()?);
            Some((reader.end()?, read))
        };
        assert_eq!(read(), Some((written, ("a text".into(), numbers.clone(), Vec::new()))));
        let bytes = fs::read(&path).expect("there");
        for at in (0..bytes.len()).step_by(bytes.len() / 97) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            fs::write(&path, &flipped).expect("written");
            assert_eq!(read(), None, "flipped at {at}");
            fs::write(&path, &bytes[..at]).expect("written");
            assert_eq!(read(), None, "cut at {at}");
        }
        fs::write(&path, &[bytes.as_slice(), &[0]].concat()).expect("written");
        assert_eq!(read(), None, "longer");
    }
}
