//! All blobs at once, and looks at them that change nothing: for collection and verification.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::blobs::{Blobs, StoreError, mtime_ns};
use super::pack::Pack;
use super::tree::Tree;
use crate::fingerprint::Digest;
use crate::util::fs;

/// A blob's file, or its pack's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What its name says.
    pub digest: Digest,
    /// The file's size in bytes.
    pub size: u64,
    /// Its modification time, ns.
    pub mtime_ns: i64,
    /// How many names it has on its file system.
    pub names: u64,
}

/// What the store's files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Bytes of all files.
    pub bytes: u64,
    /// Blobs, packed ones among them.
    pub blobs: usize,
    /// Packed blobs.
    pub packed: usize,
    /// Bytes that their packs are smaller by.
    pub bytes_saved: u64,
}

impl Blobs {
    /// Every whole blob, by digest.
    pub fn list(&self) -> Result<Vec<Blob>, StoreError> {
        Ok(walk(self.dir())?.0)
    }

    /// Every pack, by the digest of what it holds.
    pub fn list_packs(&self) -> Result<Vec<Blob>, StoreError> {
        Ok(walk(self.packs_dir())?.0)
    }

    /// Files among blobs and packs whose names are not digests.
    pub(super) fn strangers(&self) -> Result<Vec<PathBuf>, StoreError> {
        Ok([walk(self.dir())?.1, walk(self.packs_dir())?.1].concat())
    }

    /// Bytes and number of all blobs and packs.
    pub fn held(&self) -> Result<Held, StoreError> {
        let (blobs, packs) = (self.list()?, self.list_packs()?);
        let bytes = blobs.iter().chain(&packs).map(|b| b.size).sum();
        let mut held = Held { bytes, blobs: blobs.len(), ..Held::default() };
        // A blob that was made whole again is no longer a packed one; its pack saves nothing.
        for pack in packs.iter().filter(|pack| !self.path(&pack.digest).exists()) {
            held.blobs += 1;
            held.packed += 1;
            let size = Pack::open(&self.pack_path(&pack.digest))?.map_or(0, |(pack, _)| pack.size());
            held.bytes_saved += size.saturating_sub(pack.size);
        }
        Ok(held)
    }

    /// Reads an artifact's tree without putting a damaged one aside.
    pub(super) fn look_at_tree(&self, artifact: &Digest) -> Result<Tree, StoreError> {
        let path = self.path(artifact);
        let bytes =
            fs::read(&path).map_err(|e| if e.is_missing() { StoreError::Missing(*artifact) } else { e.into() })?;
        if Digest::of(&bytes) != *artifact {
            return Err(StoreError::Corrupt { digest: *artifact, path });
        }
        Tree::from_bytes(&bytes).map_err(|source| StoreError::BadTree { digest: *artifact, source })
    }
}

/// Every file below a directory that is named by a digest, and every other file.
fn walk(dir: &Path) -> Result<(Vec<Blob>, Vec<PathBuf>), StoreError> {
    let (mut blobs, mut strangers) = (Vec::new(), Vec::new());
    if !dir.exists() {
        return Ok((blobs, strangers));
    }
    for entry in WalkDir::new(dir).sort_by_file_name() {
        let entry = match entry {
            Err(e) if e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound) => continue,
            other => other.map_err(|source| StoreError::Walk { path: dir.to_owned(), source })?,
        };
        if entry.file_type().is_dir() {
            continue;
        }
        let path = entry.into_path();
        let name = path.strip_prefix(dir).expect("walked from there").to_string_lossy().replace('/', "");
        let digest = name.parse().ok().filter(|digest| dir.join(Blobs::name(digest)) == path);
        match (digest, path.symlink_metadata()) {
            (Some(digest), Ok(m)) if m.is_file() => {
                blobs.push(Blob { digest, size: m.len(), mtime_ns: mtime_ns(&m), names: m.nlink() });
            }
            (_, Err(e)) if e.kind() == std::io::ErrorKind::NotFound => {}
            _ => strangers.push(path),
        }
    }
    Ok((blobs, strangers))
}
