//! Putting an artifact's files somewhere: cloned, linked or copied.
//!
//! | | what is done | why |
//! |---|---|---|
//! | the file system can clone | a clone | no bytes copied, and writing to it harms nothing |
//! | else, 1 MiB and more | a read-only hard link | no bytes copied; compared with the index before any use |
//! | else | a copy | cheap, and may be edited |
//! | an action's inputs | a read-only hard link, whatever the size | an action does not write to its inputs |
//!
//! A blob is compared with the index right before it is used. Its files cost little more than the system calls a bare
//! copy needs: names are looked up from open directories, modes are given at creation.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::blobs::{Blobs, StoreError, mtime_ns, set_mode};
use super::index::{BlobEvidence, Index};
use super::tree::{Entry, Form, link_target};
use crate::fingerprint::Digest;
use crate::util::dir::{Dir, Looks};
use crate::util::{fault, fs};

/// From this size on a file is linked and not copied: below it a copy costs no more than the look that a link needs.
const LINKED_BYTES_MIN: u64 = 1 << 20;

/// From this many files on they are put in place by all threads.
const TOGETHER_MIN: usize = 64;

/// What the files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be looked at and perhaps edited by the user.
    Output,
    /// To be read by an action.
    Input,
}

/// A file as it was put in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Relative path.
    #[serde(with = "crate::util::paths::one")]
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, ns.
    pub mtime_ns: i64,
}

impl Placed {
    /// How a file looks; none where nothing is.
    pub fn at(dir: &Path, path: &Path) -> Option<Self> {
        let metadata = dir.join(path).symlink_metadata().ok()?;
        Some(Self { path: path.to_owned(), size: metadata.len(), mtime_ns: mtime_ns(&metadata) })
    }
}

/// Set once the file system has refused a clone, so that it is not asked for each file.
static NO_CLONES: AtomicBool = AtomicBool::new(false);

/// A blob's size and mtime in ns, as the index remembers it.
type Remembered = Option<(u64, i64)>;

impl Blobs {
    /// Puts all files of an artifact into `to`, which must not hold files of the same names.
    ///
    /// Blobs that have lost their evidence (edited through a link, cut by a disk error) are put aside and
    /// reported, not handed on; `to` is then incomplete.
    pub fn materialise(
        &self,
        index: &Index,
        artifact: &Digest,
        to: &Path,
        purpose: Purpose,
    ) -> Result<Vec<Placed>, StoreError> {
        let tree = self.tree(artifact)?;
        let digests: Vec<Digest> = tree.entries().iter().map(|e| e.digest).collect();
        let remembered = index.blobs(&digests);
        fs::create_dir_all(to)?;
        let dirs: BTreeSet<&Path> = tree.entries().iter().filter_map(|e| e.path.parent()).collect();
        for dir in dirs.into_iter().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(&to.join(dir))?;
        }
        let placing = Placing { blobs: self, from: Dir::open(self.dir())?, to: Dir::open(to)?, purpose };
        let place = |(entry, remembered): (&Entry, &Remembered)| {
            let (looks, seen) = placing.place(entry, remembered)?;
            Ok((Placed { path: entry.path.clone(), size: looks.size, mtime_ns: looks.mtime_ns }, seen))
        };
        let placed: Result<Vec<(Placed, Option<BlobEvidence>)>, StoreError> = if digests.len() < TOGETHER_MIN {
            tree.entries().iter().zip(&remembered).map(place).collect()
        } else {
            tree.entries().par_iter().zip(&remembered).map(place).collect()
        };
        let (placed, seen): (Vec<Placed>, Vec<Option<BlobEvidence>>) = placed?.into_iter().unzip();
        index.remember_blobs(&seen.into_iter().flatten().collect::<Vec<_>>());
        Ok(placed)
    }
}

/// Files on their way from the store to a directory.
struct Placing<'a> {
    blobs: &'a Blobs,
    from: Dir,
    to: Dir,
    purpose: Purpose,
}

impl Placing<'_> {
    /// Places one file, and says how it looks; with evidence of its blob where the index had none that agrees.
    fn place(&self, entry: &Entry, remembered: &Remembered) -> Result<(Looks, Option<BlobEvidence>), StoreError> {
        let name = Blobs::name(&entry.digest);
        let name = name.as_ref();
        let (looks, seen) = self.check(entry, name, remembered)?;
        fault::step();
        match entry.form {
            Form::Link => {
                let to = self.to.path(&entry.path);
                let bytes = self.blobs.read(&entry.digest)?;
                fs::at("link", &to, std::os::unix::fs::symlink(link_target(&bytes), &to))?;
                return Ok((self.to.look(&entry.path)?, seen));
            }
            // The mode belongs to the inode, which a link shares: an executable is always a file of its own.
            Form::Executable => return Ok((self.from.copy(name, entry.size, &self.to, &entry.path, 0o755)?, seen)),
            Form::File => {}
        }
        if self.purpose == Purpose::Output && clone_file(&self.from.path(name), &self.to.path(&entry.path)) {
            let to = self.to.path(&entry.path);
            fs::at("open up", &to, set_mode(&to, 0o644))?;
            return Ok((self.to.look(&entry.path)?, seen));
        }
        let is_linked = self.purpose == Purpose::Input || entry.size >= LINKED_BYTES_MIN;
        if is_linked && self.from.link(name, &self.to, &entry.path).is_ok() {
            return Ok((looks, seen));
        }
        let mode = if is_linked { 0o444 } else { 0o644 };
        Ok((self.from.copy(name, entry.size, &self.to, &entry.path, mode)?, seen))
    }

    /// Compares a blob with what the index remembers of it; hashes one that looks different, makes a packed one whole.
    fn check(
        &self,
        entry: &Entry,
        name: &Path,
        remembered: &Remembered,
    ) -> Result<(Looks, Option<BlobEvidence>), StoreError> {
        let damaged = match self.from.look(name) {
            Ok(looks) if *remembered == Some((looks.size, looks.mtime_ns)) && looks.size == entry.size => {
                return Ok((looks, None));
            }
            Ok(looks) => {
                let path = self.from.path(name);
                let (digest, size) = fs::at("read", &path, Digest::of_file(&path))?;
                if digest == entry.digest && size == entry.size {
                    return Ok((looks, Some((digest, size, looks.mtime_ns))));
                }
                Some(self.blobs.put_aside(&entry.digest, &path))
            }
            Err(_) => None,
        };
        match (self.blobs.unpack(&entry.digest), damaged) {
            (Err(StoreError::Missing(_)), Some(damaged)) => return Err(damaged),
            (unpacked, _) => unpacked?,
        }
        let looks = self.from.look(name)?;
        Ok((looks, Some((entry.digest, looks.size, looks.mtime_ns))))
    }
}

/// Clones a file where the file system can; says whether it did.
fn clone_file(from: &Path, to: &Path) -> bool {
    if NO_CLONES.load(Ordering::Relaxed) {
        return false;
    }
    let cloned = try_clone(from, to);
    if !cloned {
        NO_CLONES.store(true, Ordering::Relaxed);
        let _ = fs::remove_file(to);
    }
    cloned
}

#[cfg(target_os = "linux")]
fn try_clone(from: &Path, to: &Path) -> bool {
    let (Ok(from), Ok(to)) = (fs::open(from), fs::create(to)) else { return false };
    rustix::fs::ioctl_ficlone(&to, &from).is_ok()
}

/// On macOS `std::fs::copy` clones on APFS by itself.
#[cfg(not(target_os = "linux"))]
fn try_clone(from: &Path, to: &Path) -> bool {
    cfg!(target_os = "macos") && fs::copy(from, to).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::store::Store;

    /// A store with one artifact: a small file, a large one, a program and a link.
    fn store(dir: &Path) -> (Store, Digest) {
        let made = dir.join("made");
        fs::write(&made.join("sub/small"), b"small").expect("written");
        fs::write(&made.join("large"), &vec![7; LINKED_BYTES_MIN as usize]).expect("written");
        fs::write(&made.join("program"), b"#!/bin/sh").expect("written");
        set_mode(&made.join("program"), 0o755).expect("a program");
        std::os::unix::fs::symlink("sub/small", made.join("link")).expect("linked");
        let store = Store::at(&dir.join("cache"));
        let ingested = store.blobs.ingest(&store.index, &made).expect("taken in");
        store.index.put(&[], &ingested.new_blobs).expect("noted");
        (store, ingested.artifact)
    }

    #[test]
    fn files_are_placed_with_their_content_modes_and_links() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, artifact) = store(dir.path());
        for (purpose, small_writable) in [(Purpose::Output, true), (Purpose::Input, false)] {
            let to = dir.path().join(format!("{purpose:?}"));
            let placed = store.blobs.materialise(&store.index, &artifact, &to, purpose).expect("placed");
            assert_eq!(placed.len(), 4);
            for file in &placed {
                let metadata = to.join(&file.path).symlink_metadata().expect("there");
                assert_eq!((metadata.len(), super::super::blobs::mtime_ns(&metadata)), (file.size, file.mtime_ns));
            }
            assert_eq!(fs::read(&to.join("link")).expect("read"), b"small");
            assert_eq!(fs::read(&to.join("large")).expect("read").len() as u64, LINKED_BYTES_MIN);
            let mode = |name: &str| to.join(name).metadata().expect("there").mode();
            assert_eq!(mode("program") & 0o700, 0o700);
            assert_eq!(mode("sub/small") & 0o200 != 0, small_writable);
        }
    }

    #[test]
    fn a_blob_that_was_written_through_or_is_gone_is_not_handed_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, artifact) = store(dir.path());
        let small = store.blobs.path(&Digest::of(b"small"));
        set_mode(&small, 0o644).expect("open");
        fs::write(&small, b"SMALL!").expect("written");
        let place =
            |name: &str| store.blobs.materialise(&store.index, &artifact, &dir.path().join(name), Purpose::Output);
        assert!(matches!(place("first"), Err(StoreError::Corrupt { .. })));
        assert!(matches!(place("second"), Err(StoreError::Missing(_))), "it was put aside");
    }
}
