//! A packed blob: which bytes it has in common with whole blobs, and those of its own.
//!
//! ```text
//! effai pack 1
//! b DIGEST OFFSET LENGTH    bytes of a whole blob
//! o LENGTH                  bytes of the pack's own, which lie one after the other below
//!
//! OWN BYTES
//! ```
//!
//! Lines are in the order of the bytes; an empty one ends them. The pack has the digest of what it holds as its name,
//! and is believed only as far as what it gives hashes to that: there is no checksum besides.
//!
//! Invariants: what a pack names is a whole blob, and stays one (`prune.rs`); a pack has its name only once it was
//! assembled and synced, and only then its blob goes. A packed blob that somebody needs becomes an ordinary one; its
//! pack stays until the next prune.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::blobs::{Blobs, StoreError, mtime_ns, set_mode};
use super::index::BlobEvidence;
use crate::fingerprint::{Digest, Hasher};
use crate::util::fault;
use crate::util::fs::{self, FsError};

const HEAD: &str = "effai pack 1";

/// No line is longer; what is was damaged.
const LINE_BYTES_MAX: u64 = 128;

/// So many bytes are read, hashed and written at once.
const BUFFER_BYTES: usize = 1 << 18;

/// Where the bytes of a packed blob are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pack {
    ranges: Vec<Range>,
}

/// The next bytes of a packed blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// They are a whole blob's.
    Of { blob: Digest, offset: u64, length: u64 },
    /// They are the pack's own.
    Own { length: u64 },
}

impl Range {
    fn length(self) -> u64 {
        match self {
            Range::Of { length, .. } | Range::Own { length } => length,
        }
    }
}

impl Pack {
    /// Adds the next bytes; what goes on where the last range ends becomes one with it.
    pub(super) fn push(&mut self, next: Range) {
        match (self.ranges.last_mut(), next) {
            (Some(Range::Own { length }), Range::Own { length: more }) => *length += more,
            (Some(Range::Of { blob, offset, length }), Range::Of { blob: same, offset: at, length: more })
                if *blob == same && *offset + *length == at =>
            {
                *length += more;
            }
            _ => self.ranges.push(next),
        }
    }

    /// Bytes of what it holds.
    pub(super) fn size(&self) -> u64 {
        self.ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.length()))
    }

    /// Bytes of its file.
    pub(super) fn file_size(&self) -> u64 {
        let own = self.ranges.iter().filter(|range| matches!(range, Range::Own { .. })).map(|range| range.length());
        self.table().len() as u64 + own.sum::<u64>()
    }

    /// The blobs it takes bytes from.
    pub(super) fn bases(&self) -> BTreeSet<Digest> {
        let base = |range: &Range| match range {
            Range::Of { blob, .. } => Some(*blob),
            Range::Own { .. } => None,
        };
        self.ranges.iter().filter_map(base).collect()
    }

    fn table(&self) -> String {
        let mut table = format!("{HEAD}\n");
        for range in &self.ranges {
            table.push_str(&match range {
                Range::Of { blob, offset, length } => format!("b {blob} {offset} {length}\n"),
                Range::Own { length } => format!("o {length}\n"),
            });
        }
        table.push('\n');
        table
    }

    /// Opens a pack's file, which is left where its own bytes begin; none if it is not there or is no pack.
    pub(super) fn open(path: &Path) -> Result<Option<(Self, BufReader<File>)>, FsError> {
        let file = match fs::open(path) {
            Err(e) if e.is_missing() => return Ok(None),
            other => other?,
        };
        let mut reader = BufReader::new(file);
        let pack = fs::at("read", path, unless_damaged(Self::read(&mut reader)))?;
        Ok(pack.flatten().map(|pack| (pack, reader)))
    }

    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut pack = Self::default();
        let mut line = Vec::new();
        for n in 0.. {
            line.clear();
            reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            let Some(text) = std::str::from_utf8(&line).ok().and_then(|text| text.strip_suffix('\n')) else {
                return Ok(None);
            };
            match (n, range(text)) {
                (0, _) if text == HEAD => {}
                (1.., Some(range)) => pack.ranges.push(range),
                (1.., None) if text.is_empty() => break,
                _ => return Ok(None),
            }
        }
        Ok(Some(pack))
    }
}

fn range(line: &str) -> Option<Range> {
    let mut words = line.split(' ');
    let range = match words.next()? {
        "b" => Range::Of {
            blob: words.next()?.parse().ok()?,
            offset: words.next()?.parse().ok()?,
            length: words.next()?.parse().ok()?,
        },
        "o" => Range::Own { length: words.next()?.parse().ok()? },
        _ => return None,
    };
    words.next().is_none().then_some(range)
}

/// None where bytes cannot be had: a file is too short, or the disk cannot read it.
fn unless_damaged<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(None),
        other => other.map(Some),
    }
}

impl Blobs {
    /// Where a blob's pack lies, or would.
    pub(super) fn pack_path(&self, digest: &Digest) -> PathBuf {
        self.packs_dir().join(Self::name(digest))
    }

    /// Where a blob lies; a packed one is made whole first.
    pub fn whole(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let path = self.path(digest);
        if !path.exists() {
            self.unpack(digest)?;
        }
        Ok(path)
    }

    /// Makes a packed blob an ordinary one. Not synced: the pack stays until that is done.
    pub(super) fn unpack(&self, digest: &Digest) -> Result<(), StoreError> {
        let pack = self.pack_path(digest);
        if !pack.exists() {
            return Err(StoreError::Missing(*digest));
        }
        fault::step();
        let beside = self.incoming()?;
        let mut pour = |bytes: &[u8]| {
            fault::step();
            fs::at("write", beside.path(), beside.as_file().write_all(bytes))
        };
        if !self.assemble(digest, &pack, &mut pour)? {
            return Err(self.put_pack_aside(digest));
        }
        fs::at("protect", beside.path(), set_mode(beside.path(), 0o444))?;
        let path = self.path(digest);
        fs::create_dir_all(path.parent().expect("a blob lies in a directory"))?;
        fault::step();
        match beside.persist_noclobber(&path) {
            // Another process was quicker, and others may have links to its file: that one stays.
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {}
            other => drop(fs::at("rename into", &path, other.map_err(|e| e.error))?),
        }
        fault::step();
        Ok(())
    }

    /// Gives the bytes that a pack stands for, in order; says whether all were there and hash to the digest.
    pub(super) fn assemble(
        &self,
        digest: &Digest,
        path: &Path,
        to: &mut dyn FnMut(&[u8]) -> Result<(), FsError>,
    ) -> Result<bool, FsError> {
        let Some((pack, mut own)) = Pack::open(path)? else { return Ok(false) };
        let mut bases: HashMap<Digest, File> = HashMap::new();
        for base in pack.bases() {
            match fs::open(&self.path(&base)) {
                Err(e) if e.is_missing() => return Ok(false),
                file => drop(bases.insert(base, file?)),
            }
        }
        let mut hasher = Hasher::default();
        let mut buffer = vec![0; BUFFER_BYTES];
        for range in pack.ranges {
            let mut done = 0;
            while done < range.length() {
                let part = &mut buffer[..(range.length() - done).min(BUFFER_BYTES as u64) as usize];
                let read = match range {
                    Range::Of { blob, offset, .. } => bases[&blob].read_exact_at(part, offset.saturating_add(done)),
                    Range::Own { .. } => own.read_exact(part),
                };
                if fs::at("read", path, unless_damaged(read))?.is_none() {
                    return Ok(false);
                }
                hasher.update(part);
                to(part)?;
                done += part.len() as u64;
            }
        }
        Ok(hasher.finish() == *digest)
    }

    /// A pack does not give what it should: it is put aside, and with it each blob it names that was changed.
    fn put_pack_aside(&self, digest: &Digest) -> StoreError {
        let path = self.pack_path(digest);
        if let Ok(Some((pack, _))) = Pack::open(&path) {
            for base in pack.bases() {
                let at = self.path(&base);
                if Digest::of_file(&at).is_ok_and(|(found, _)| found != base) {
                    self.put_aside(&base, &at);
                }
            }
        }
        self.put_aside(digest, &path)
    }

    /// Writes the pack of a whole blob and says how it looks. It is on the disk, as are the blobs it names; its own blob
    /// may go. None if it would not give that blob's bytes: one of the files was damaged.
    pub(super) fn pack(&self, digest: &Digest, pack: &Pack) -> Result<Option<BlobEvidence>, StoreError> {
        let from = self.path(digest);
        let whole = fs::open(&from)?;
        fault::step();
        let beside = self.incoming()?;
        let at = beside.path().to_owned();
        let write = |bytes: &[u8]| {
            fault::step();
            fs::at("write", &at, beside.as_file().write_all(bytes))
        };
        write(pack.table().as_bytes())?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut offset = 0;
        for range in &pack.ranges {
            let end = offset + range.length();
            while matches!(range, Range::Own { .. }) && offset < end {
                let part = &mut buffer[..(end - offset).min(BUFFER_BYTES as u64) as usize];
                if fs::at("read", &from, unless_damaged(whole.read_exact_at(part, offset)))?.is_none() {
                    return Ok(None);
                }
                write(part)?;
                offset += part.len() as u64;
            }
            offset = end;
        }
        fs::at("protect", &at, set_mode(&at, 0o444))?;
        fs::at("sync", &at, beside.as_file().sync_all())?;
        let bases = pack.bases();
        self.sync(bases.iter().collect::<Vec<_>>().into_iter())?;
        if !self.assemble(digest, &at, &mut |_| Ok(()))? {
            return Ok(None);
        }
        let path = self.pack_path(digest);
        let dir = path.parent().expect("a pack lies in a directory");
        fs::create_dir_all(dir)?;
        let metadata = fs::at("look at", &at, beside.as_file().metadata())?;
        fault::step();
        fs::at("rename into", &path, beside.persist(&path).map_err(|e| e.error))?;
        fault::step();
        for dir in path.ancestors().skip(1).take(3) {
            fs::sync(dir)?;
        }
        Ok(Some((*digest, metadata.len(), mtime_ns(&metadata))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack() -> Pack {
        let blob = Digest::of(b"base");
        let mut pack = Pack::default();
        pack.push(Range::Own { length: 3 });
        pack.push(Range::Own { length: 4 });
        pack.push(Range::Of { blob, offset: 10, length: 5 });
        pack.push(Range::Of { blob, offset: 15, length: 5 });
        pack.push(Range::Of { blob, offset: 0, length: 5 });
        pack
    }

    #[test]
    fn ranges_that_go_on_are_one_and_the_table_is_read_as_it_was_written() {
        let pack = pack();
        assert_eq!(pack.ranges.len(), 3);
        assert_eq!((pack.size(), pack.file_size()), (22, pack.table().len() as u64 + 7));
        let file = [pack.table().as_bytes(), b"own\nown"].concat();
        let mut reader = file.as_slice();
        assert_eq!(Pack::read(&mut reader).expect("read"), Some(pack));
        assert_eq!(reader, b"own\nown");
    }

    #[test]
    fn a_table_that_was_cut_or_is_none_is_refused() {
        let table = pack().table();
        for n in 0..table.len() {
            assert_eq!(Pack::read(&mut &table.as_bytes()[..n]).expect("read"), None, "{n}");
        }
        for bad in ["effai pack 2\n\n", "effai pack 1\no x\n\n", "effai pack 1\no 1 2\n\n", "effai pack 1\nb 1 2 3\n\n"]
        {
            assert_eq!(Pack::read(&mut bad.as_bytes()).expect("read"), None, "{bad}");
        }
    }
}
