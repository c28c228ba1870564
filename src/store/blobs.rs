//! Content by digest: taking files in, reading blobs back.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use walkdir::WalkDir;

use super::index::Index;
use super::tree::{BadTree, Entry, Form, Tree, link_bytes};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::util::fault;
use crate::util::fs::{self, FsError};

/// With this many new files and more, the file system is synced once instead of file by file.
const SYNC_AT_ONCE_MIN: usize = 32;

/// Directories from a blob up to the store's own: its two digits, `blobs` and the store.
const LEVELS: usize = 3;

/// The blobs of a store.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: Arc<PathBuf>,
    packs: Arc<PathBuf>,
    incoming: Arc<PathBuf>,
}

/// What became of a directory that was taken in.
#[derive(Debug)]
pub struct Ingested {
    /// The artifact.
    pub artifact: Digest,
    /// Its tree.
    pub tree: Tree,
    /// Evidence of each blob that is new: digest, size, mtime in ns.
    pub new_blobs: Vec<(Digest, u64, i64)>,
}

/// Something in the store that is not as it should be, or a file that could not be taken in.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A blob is not there.
    #[error("the store has no blob {0}")]
    Missing(Digest),
    /// A blob's bytes are not what its name says.
    #[error("the blob {digest} was changed: {}", path.display())]
    Corrupt {
        /// Its name.
        digest: Digest,
        /// Where it was put aside.
        path: PathBuf,
    },
    /// A tree's text is not one.
    #[error("the artifact {digest} cannot be read: {source}")]
    BadTree {
        /// The artifact.
        digest: Digest,
        /// Where.
        source: BadTree,
    },
    /// An action left something that is neither file, directory nor link.
    #[error("{} is neither a file, a directory nor a link", .0.display())]
    OddFile(PathBuf),
    /// A directory could not be walked.
    #[error("cannot list {}: {source}", path.display())]
    Walk {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: walkdir::Error,
    },
}

impl StoreError {
    /// Whether running the target again repairs it.
    pub fn is_repairable(&self) -> bool {
        matches!(self, StoreError::Missing(_) | StoreError::Corrupt { .. } | StoreError::BadTree { .. })
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fs(e) => e.into(),
            StoreError::OddFile(_) => Failure::target(error.to_string()),
            StoreError::Walk { .. } => Failure::environment(error.to_string()),
            _ => Failure::environment(error.to_string()).help("build again: what is missing is made anew"),
        }
    }
}

impl Blobs {
    pub(super) fn new(root: &Path) -> Self {
        let below = |name: &str| Arc::new(root.join(name));
        Self { dir: below("blobs"), packs: below("packs"), incoming: below("incoming") }
    }

    /// The directory they lie in.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of what is being written.
    pub(super) fn incoming_dir(&self) -> &Path {
        &self.incoming
    }

    /// The directory of their packs.
    pub(super) fn packs_dir(&self) -> &Path {
        &self.packs
    }

    /// Where a blob lies, or would; a packed one does not until it is made whole ([`Blobs::whole`]).
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(Self::name(digest))
    }

    /// The path of a blob from their directory.
    pub(super) fn name(digest: &Digest) -> String {
        let mut name = digest.to_string();
        name.insert(2, '/');
        name
    }

    /// Whether a blob is there, whole or packed.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists() || self.pack_path(digest).exists()
    }

    /// Reads an artifact's tree.
    pub fn tree(&self, artifact: &Digest) -> Result<Tree, StoreError> {
        let bytes = self.read(artifact)?;
        Tree::from_bytes(&bytes).map_err(|source| StoreError::BadTree { digest: *artifact, source })
    }

    /// Reads a small blob whole, and checks it.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let bytes = match fs::read(&path) {
            Err(e) if e.is_missing() => fs::read(&self.whole(digest)?)?,
            other => other?,
        };
        if Digest::of(&bytes) != *digest {
            return Err(self.put_aside(digest, &path));
        }
        Ok(bytes)
    }

    /// Takes a blob or a pack that is not what it should be out of the way, keeping it for a look.
    pub(super) fn put_aside(&self, digest: &Digest, path: &Path) -> StoreError {
        let kind = if path.starts_with(&*self.packs) { "pack-" } else { "" };
        let aside = self.incoming.join(format!("corrupt-{kind}{digest}"));
        let moved = fs::create_dir_all(&self.incoming).and_then(|()| fs::rename(path, &aside));
        StoreError::Corrupt { digest: *digest, path: if moved.is_ok() { aside } else { path.to_owned() } }
    }

    /// A file in `incoming/`, to be written and then renamed into place.
    pub(super) fn incoming(&self) -> Result<tempfile::NamedTempFile, FsError> {
        fs::create_dir_all(&self.incoming)?;
        fs::at("create a file in", &self.incoming, tempfile::NamedTempFile::new_in(&*self.incoming))
    }

    /// Takes a directory's files in; they are moved where the file system lets them be.
    ///
    /// Files are hashed on all of rayon's threads; the tree does not depend on how many. The new blobs are not synced:
    /// [`Blobs::sync`] does that for many artifacts at once, before the index names them. A blob that is there is
    /// believed only if the index remembers it as it looks: left by a build that was killed, it was never synced.
    pub fn ingest(&self, index: &Index, dir: &Path) -> Result<Ingested, StoreError> {
        let files = files_below(dir)?;
        let taken: Vec<(Entry, bool)> =
            files.par_iter().map(|path| self.take(index, dir, path)).collect::<Result<_, _>>()?;
        let tree = Tree::new(taken.iter().map(|(entry, _)| entry.clone()).collect());
        let bytes = tree.to_bytes();
        let artifact = Digest::of(&bytes);
        let mut new: HashMap<Digest, u64> =
            taken.iter().filter(|(_, new)| *new).map(|(e, _)| (e.digest, e.size)).collect();
        if self.write(index, &artifact, &bytes)? {
            new.insert(artifact, bytes.len() as u64);
        }
        let mut new_blobs = Vec::with_capacity(new.len());
        for (digest, size) in new {
            let path = self.path(&digest);
            let metadata = fs::at("look at", &path, path.symlink_metadata())?;
            new_blobs.push((digest, size, mtime_ns(&metadata)));
        }
        new_blobs.sort_unstable();
        Ok(Ingested { artifact, tree, new_blobs })
    }

    /// One file; says whether its blob is new.
    fn take(&self, index: &Index, dir: &Path, path: &Path) -> Result<(Entry, bool), StoreError> {
        let (entry, metadata) = entry(dir, path)?;
        let new = if entry.form == Form::Link {
            let target = fs::at("read the link", path, path.read_link())?;
            self.write(index, &entry.digest, link_bytes(&target))?
        } else {
            !self.is_kept(index, &entry.digest) && self.take_content(path, &metadata, &entry.digest)?
        };
        Ok((entry, new))
    }

    fn take_content(&self, path: &Path, metadata: &std::fs::Metadata, digest: &Digest) -> Result<bool, StoreError> {
        let to = self.path(digest);
        fs::create_dir_all(to.parent().expect("a blob lies in a directory"))?;
        // A file with a second name may be written through it later: only a sole name is moved.
        if metadata.nlink() == 1 {
            fs::at("protect", path, set_mode(path, 0o444))?;
            if fs::rename(path, &to).is_ok() {
                return Ok(true);
            }
        }
        let beside = self.incoming()?.into_temp_path();
        fs::copy(path, &beside)?;
        fs::at("protect", &beside, set_mode(&beside, 0o444))?;
        fs::rename(&beside, &to)?;
        Ok(true)
    }

    /// Writes a blob from memory; says whether it is new.
    fn write(&self, index: &Index, digest: &Digest, bytes: &[u8]) -> Result<bool, StoreError> {
        if self.is_kept(index, digest) {
            return Ok(false);
        }
        fs::write_atomic_mode(&self.path(digest), bytes, 0o444)?;
        Ok(true)
    }

    /// Whether a blob is there and looks as the index remembers it.
    pub(super) fn is_kept(&self, index: &Index, digest: &Digest) -> bool {
        let Ok(metadata) = self.path(digest).symlink_metadata() else { return false };
        index.blobs(&[*digest]) == [Some((metadata.len(), mtime_ns(&metadata)))]
    }

    /// Makes new blobs, and the names they have, last through a power cut before the index names them.
    pub fn sync<'a>(&self, digests: impl ExactSizeIterator<Item = &'a Digest>) -> Result<(), StoreError> {
        if digests.len() >= SYNC_AT_ONCE_MIN {
            #[cfg(target_os = "linux")]
            {
                let dir = fs::open(&self.dir)?;
                return Ok(fs::at("sync", &self.dir, rustix::fs::syncfs(&dir).map_err(Into::into))?);
            }
        }
        let mut names = BTreeSet::new();
        for digest in digests {
            let path = self.path(digest);
            fs::sync(&path)?;
            names.extend(path.ancestors().skip(1).take(LEVELS).map(Path::to_owned));
        }
        names.iter().try_for_each(|dir| Ok(fs::sync(dir)?))
    }
}

impl Tree {
    /// The tree of a directory's files, which stay where they are.
    pub fn of_dir(dir: &Path) -> Result<Self, StoreError> {
        let files = files_below(dir)?;
        let entries = files.par_iter().map(|path| Ok(entry(dir, path)?.0)).collect::<Result<_, StoreError>>()?;
        Ok(Self::new(entries))
    }
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    for entry in WalkDir::new(dir).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|source| StoreError::Walk { path: dir.to_owned(), source })?;
        if !entry.file_type().is_dir() {
            files.push(entry.into_path());
        }
    }
    Ok(files)
}

/// What a file below a directory is to a tree.
fn entry(dir: &Path, path: &Path) -> Result<(Entry, std::fs::Metadata), StoreError> {
    let metadata = fs::at("look at", path, path.symlink_metadata())?;
    let relative = path.strip_prefix(dir).expect("walked from there").to_owned();
    if metadata.is_symlink() {
        let target = fs::at("read the link", path, path.read_link())?;
        let bytes = link_bytes(&target);
        let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
        return Ok((Entry { path: relative, form: Form::Link, digest, size }, metadata));
    }
    if !metadata.is_file() {
        return Err(StoreError::OddFile(path.to_owned()));
    }
    let form = if metadata.permissions().mode() & 0o111 != 0 { Form::Executable } else { Form::File };
    let (digest, size) = fs::at("read", path, Digest::of_file(path))?;
    Ok((Entry { path: relative, form, digest, size }, metadata))
}

pub(super) fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    fault::step();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

pub(super) fn mtime_ns(metadata: &std::fs::Metadata) -> i64 {
    metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()
}
