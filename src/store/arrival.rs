//! Blobs that come from elsewhere, and blobs on their way there.
//!
//! A blob that arrives is written to `incoming/from-DIGEST` and gets its name once its bytes hash to it. What was cut
//! off stays there, and the next attempt goes on from its end; a file is one process's at a time, by the kernel's lock.
//! Like what an action made, what arrived is not synced before [`Blobs::sync`].

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::blobs::{Blobs, StoreError, mtime_ns, set_mode};
use super::index::{BlobEvidence, Index};
use super::tree::Tree;
use crate::fingerprint::{Digest, Hasher};
use crate::util::fault;
use crate::util::fs::{self, FsError};

/// So many bytes of what came before are read and hashed at once.
const BUFFER_BYTES: usize = 1 << 18;

/// A blob that is being written as its bytes come.
pub struct Arrival {
    digest: Digest,
    file: File,
    at: PathBuf,
    hasher: Hasher,
    bytes: u64,
}

/// How a blob's arrival ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It has its name; this is how it looks.
    Whole(BlobEvidence),
    /// Its bytes have this digest and are gone.
    Wrong(Digest),
}

impl Arrival {
    /// How many of its bytes are there.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds its next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        fault::step();
        fs::at("write", &self.at, self.file.write_all(bytes))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew: what is there is not what it should be.
    pub fn restart(&mut self) -> Result<(), FsError> {
        fs::at("cut", &self.at, self.file.set_len(0).and_then(|()| self.file.rewind()))?;
        (self.hasher, self.bytes) = (Hasher::default(), 0);
        Ok(())
    }

    /// All its bytes have come: it gets its name if they are what it says.
    pub fn finish(self, blobs: &Blobs) -> Result<Arrived, StoreError> {
        let found = self.hasher.finish();
        if found != self.digest {
            fs::remove_file(&self.at)?;
            return Ok(Arrived::Wrong(found));
        }
        fs::at("protect", &self.at, set_mode(&self.at, 0o444))?;
        let metadata = fs::at("look at", &self.at, self.file.metadata())?;
        let path = blobs.path(&self.digest);
        fs::create_dir_all(path.parent().expect("a blob lies in a directory"))?;
        fs::rename(&self.at, &path)?;
        Ok(Arrived::Whole((self.digest, metadata.len(), mtime_ns(&metadata))))
    }
}

impl Blobs {
    /// A place for a blob that comes from elsewhere, with what an earlier attempt left of it.
    pub fn arrival(&self, digest: &Digest) -> Result<Arrival, FsError> {
        let dir = self.incoming_dir();
        fs::create_dir_all(dir)?;
        let usual = dir.join(format!("from-{digest}"));
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        for n in 0.. {
            // Another process that brings the same blob has the usual place: this one goes its own way.
            let at = if n == 0 { usual.clone() } else { dir.join(format!("from-{digest}-{}-{n}", std::process::id())) };
            fault::step();
            let file = match options.open(&at) {
                // Whole but for its name when its process was killed, or about to get that.
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && n == 0 => continue,
                other => fs::at("open", &at, other)?,
            };
            // A name that went between the two is another's blob by now.
            if file.try_lock().is_err() || !is_named(&file, &at) {
                continue;
            }
            let mut arrival = Arrival { digest: *digest, file, at, hasher: Hasher::default(), bytes: 0 };
            arrival.take_up()?;
            return Ok(arrival);
        }
        unreachable!("there is no end of names")
    }

    /// Writes a small blob that came from elsewhere. The caller has checked its bytes.
    pub fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<BlobEvidence, StoreError> {
        let path = self.path(digest);
        fs::write_atomic_mode(&path, bytes, 0o444)?;
        let metadata = fs::at("look at", &path, path.symlink_metadata())?;
        Ok((*digest, metadata.len(), mtime_ns(&metadata)))
    }

    /// Whether a blob is there and believed: it looks as the index remembers it, or is packed, or hashes to its name. In
    /// the last case the index is to learn how it looks, once it is synced.
    pub fn believed(&self, index: &Index, digest: &Digest) -> Result<Option<Option<BlobEvidence>>, StoreError> {
        let path = self.path(digest);
        let Ok(metadata) = path.symlink_metadata() else {
            return Ok(self.pack_path(digest).exists().then_some(None));
        };
        if self.is_kept(index, digest) {
            return Ok(Some(None));
        }
        let (found, size) = fs::at("read", &path, Digest::of_file(&path))?;
        if found != *digest {
            self.put_aside(digest, &path);
            return Ok(None);
        }
        Ok(Some(Some((*digest, size, mtime_ns(&metadata)))))
    }

    /// A blob's file whose bytes are what its name says, to be taken elsewhere.
    pub fn sound(&self, index: &Index, digest: &Digest) -> Result<PathBuf, StoreError> {
        let path = self.whole(digest)?;
        match self.believed(index, digest)? {
            Some(_) => Ok(path),
            None => Err(StoreError::Missing(*digest)),
        }
    }

    /// Whether all of an artifact is there, by a look at the names of its blobs.
    pub fn has_all(&self, artifact: &Digest) -> bool {
        self.tree(artifact).is_ok_and(|tree: Tree| tree.entries().iter().all(|entry| self.has(&entry.digest)))
    }
}

impl Arrival {
    /// Hashes what an earlier attempt left.
    fn take_up(&mut self) -> Result<(), FsError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        fs::at("read", &self.at, self.file.seek(SeekFrom::Start(0)))?;
        loop {
            match fs::at("read", &self.at, self.file.read(&mut buffer))? {
                0 => return Ok(()),
                n => {
                    self.hasher.update(&buffer[..n]);
                    self.bytes += n as u64;
                }
            }
        }
    }
}

fn is_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let looks = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|ours| path.symlink_metadata().is_ok_and(|named| looks(named) == looks(ours)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn what_was_cut_off_goes_on_and_what_is_wrong_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path());
        let digest = Digest::of(b"first and second");
        let mut cut = store.blobs.arrival(&digest).expect("a place");
        cut.write(b"first and").expect("written");
        let mut beside = store.blobs.arrival(&digest).expect("another place");
        assert_eq!(beside.bytes(), 0, "the first is another's");
        beside.write(b"second").expect("written");
        assert_eq!(beside.finish(&store.blobs).expect("ended"), Arrived::Wrong(Digest::of(b"second")));
        assert!(!store.blobs.has(&digest));
        drop(cut);
        let mut again = store.blobs.arrival(&digest).expect("a place");
        assert_eq!(again.bytes(), 9);
        again.write(b" second").expect("written");
        let Arrived::Whole(evidence) = again.finish(&store.blobs).expect("ended") else { panic!("it is wrong") };
        assert_eq!(store.blobs.read(&digest).expect("read"), b"first and second");
        assert_eq!(store.blobs.believed(&store.index, &digest).expect("looked"), Some(Some(evidence)));
        store.index.put(&[], &[evidence]).expect("noted");
        assert_eq!(store.blobs.believed(&store.index, &digest).expect("looked"), Some(None));
        assert_eq!(fs::list(&dir.path().join("v1/incoming")).expect("listed"), Vec::<PathBuf>::new());
    }
}
