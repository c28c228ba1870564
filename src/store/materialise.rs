//! Putting an artifact's files somewhere: cloned, linked or copied.
//!
//! | | what is done | why |
//! |---|---|---|
//! | the file system can clone | a clone | no bytes copied, and writing to it harms nothing |
//! | else, 1 MiB and more | a read-only hard link | no bytes copied; compared with the index before any use |
//! | else | a copy | cheap, and may be edited |
//! | an action's inputs | a read-only hard link, whatever the size | an action does not write to its inputs |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::blobs::{Blobs, StoreError, mtime_ns, set_mode};
use super::index::Index;
use super::tree::{Entry, Form, Tree, link_target};
use crate::fingerprint::Digest;
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

impl Blobs {
    /// Puts all files of an artifact into `to`, which must not hold files of the same names.
    ///
    /// Blobs that have lost their evidence (edited through a link, cut by a disk error) are put aside and
    /// reported, not handed on.
    pub fn materialise(
        &self,
        index: &Index,
        artifact: &Digest,
        to: &Path,
        purpose: Purpose,
    ) -> Result<Vec<Placed>, StoreError> {
        let tree = self.tree(artifact)?;
        self.check(index, &tree)?;
        fs::create_dir_all(to)?;
        let dirs: BTreeSet<&Path> = tree.entries().iter().filter_map(|e| e.path.parent()).collect();
        for dir in dirs.into_iter().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(&to.join(dir))?;
        }
        if tree.entries().len() < TOGETHER_MIN {
            return tree.entries().iter().map(|entry| self.place(entry, to, purpose)).collect();
        }
        tree.entries().par_iter().map(|entry| self.place(entry, to, purpose)).collect()
    }

    /// Compares each blob with what the index remembers of it; hashes those that look different.
    fn check(&self, index: &Index, tree: &Tree) -> Result<(), StoreError> {
        let digests: Vec<Digest> = tree.entries().iter().map(|e| e.digest).collect();
        let remembered = index.blobs(&digests);
        let look = |(entry, evidence): (&Entry, &Option<(u64, i64)>)| {
            let path = self.path(&entry.digest);
            let Ok(metadata) = path.symlink_metadata() else { return Err(StoreError::Missing(entry.digest)) };
            if *evidence == Some((metadata.len(), mtime_ns(&metadata))) && metadata.len() == entry.size {
                return Ok(None);
            }
            let (digest, size) = fs::at("read", &path, Digest::of_file(&path))?;
            if digest != entry.digest || size != entry.size {
                return Err(self.put_aside(&entry.digest));
            }
            Ok(Some((entry.digest, size, mtime_ns(&metadata))))
        };
        let looked: Vec<_> = if digests.len() < TOGETHER_MIN {
            tree.entries().iter().zip(&remembered).map(look).collect::<Result<_, _>>()?
        } else {
            tree.entries().par_iter().zip(&remembered).map(look).collect::<Result<_, _>>()?
        };
        index.remember_blobs(&looked.into_iter().flatten().collect::<Vec<_>>());
        Ok(())
    }

    fn place(&self, entry: &Entry, dir: &Path, purpose: Purpose) -> Result<Placed, StoreError> {
        let to = dir.join(&entry.path);
        let from = self.path(&entry.digest);
        fault::step();
        match entry.form {
            Form::Link => {
                let bytes = self.read(&entry.digest)?;
                fs::at("link", &to, std::os::unix::fs::symlink(link_target(&bytes), &to))?;
            }
            // The mode belongs to the inode, which a link shares: an executable is always a file of its own.
            Form::Executable => self.copy(&from, &to, 0o755)?,
            Form::File if purpose == Purpose::Output && clone_file(&from, &to) => {
                fs::at("open up", &to, set_mode(&to, 0o644))?;
            }
            Form::File if purpose == Purpose::Input || entry.size >= LINKED_BYTES_MIN => {
                if std::fs::hard_link(&from, &to).is_err() {
                    self.copy(&from, &to, 0o444)?;
                }
            }
            Form::File => self.copy(&from, &to, 0o644)?,
        }
        let metadata = fs::at("look at", &to, to.symlink_metadata())?;
        Ok(Placed { path: entry.path.clone(), size: metadata.len(), mtime_ns: mtime_ns(&metadata) })
    }

    fn copy(&self, from: &Path, to: &Path, mode: u32) -> Result<(), StoreError> {
        fs::copy_over(from, to)?;
        Ok(fs::at("set the mode of", to, set_mode(to, mode))?)
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
