//! Where actions run: a few directories that are used again and again, and inputs laid out once a build.
//!
//! ```text
//! .effai/scratch/PID/0/{out,work}     where an action runs; emptied for the next
//! .effai/scratch/PID/in/ARTIFACT/     an artifact that actions of this build read, read-only
//! .effai/scratch/LABEL-KEY/           where an action failed, kept for a look
//! ```
//!
//! File systems are slow at making directories and at making files where many were just deleted: in a cold build of
//! small commands that was half of all time. All of it goes with the build; what a killed one left goes with the next.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use walkdir::WalkDir;

use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::store::{Purpose, Store};
use crate::util::fs::{self, FsError};

/// The scratch directories of one build.
pub(super) struct Scratch {
    /// Of the project.
    all: PathBuf,
    /// Of this build.
    ours: PathBuf,
    free: Vec<PathBuf>,
    made: usize,
    pub(super) inputs: Arc<Inputs>,
    _alive: File,
}

impl Scratch {
    /// This build's directories, below the project's root. Those of builds that were killed are taken away.
    pub(super) fn open(root: &Path) -> Result<Self, FsError> {
        let all = root.join(".effai/scratch");
        let ours = all.join(std::process::id().to_string());
        for path in fs::list(&all)? {
            let is_a_builds = path.file_name().is_some_and(|n| n.as_encoded_bytes().iter().all(u8::is_ascii_digit));
            let is_dead = || fs::open(&path.join("alive")).map_or(true, |file| file.try_lock().is_ok());
            if is_a_builds && is_dead() {
                // What an action that is just ending still writes there goes the next time.
                let _ = fs::remove_dir_all(&path);
            }
        }
        let alive = fs::create(&ours.join("alive"))?;
        fs::at("lock", &ours, alive.lock())?;
        let inputs = Arc::new(Inputs { dir: ours.join("in"), laid: Mutex::default() });
        fs::create_dir_all(&inputs.dir)?;
        Ok(Self { all, ours, free: Vec::new(), made: 0, inputs, _alive: alive })
    }

    /// A directory for one action.
    pub(super) fn take(&mut self) -> Result<PathBuf, FsError> {
        if let Some(free) = self.free.pop() {
            return Ok(free);
        }
        let dir = self.ours.join(self.made.to_string());
        self.made += 1;
        fs::create_dir_all(&dir.join("out"))?;
        fs::create_dir_all(&dir.join("work"))?;
        Ok(dir)
    }

    /// For the next action; it was emptied.
    pub(super) fn give_back(&mut self, dir: PathBuf) {
        self.free.push(dir);
    }

    /// Keeps the directory of a failed action under a name, with the inputs it links to.
    pub(super) fn keep(&self, dir: &Path, name: &str, store: &Store) -> Result<PathBuf, Failure> {
        let kept = self.all.join(name);
        fs::remove_dir_all(&kept)?;
        fs::rename(dir, &kept)?;
        let links = WalkDir::new(kept.join("work")).into_iter().filter_map(Result::ok);
        for link in links.filter(|e| e.path_is_symlink()).map(walkdir::DirEntry::into_path) {
            let Some((artifact, rest)) = link.read_link().ok().and_then(|target| self.inputs.artifact(&target)) else {
                continue;
            };
            let own = kept.join("in").join(artifact.short());
            if !own.exists() {
                store.blobs.materialise(&store.index, &artifact, &own, Purpose::Input)?;
            }
            fs::remove_file(&link)?;
            fs::at("link", &link, std::os::unix::fs::symlink(own.join(rest), &link))?;
        }
        Ok(kept)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind it costs space until the next build.
        let _ = fs::remove_dir_all(&self.ours);
    }
}

/// Empties an action's directory.
pub(super) fn empty(dir: &Path) -> Result<(), FsError> {
    fs::list(dir)?.iter().try_for_each(|part| fs::empty_dir(part))
}

/// Artifacts laid out for actions to read.
pub(super) struct Inputs {
    dir: PathBuf,
    laid: Mutex<HashMap<Digest, Arc<OnceLock<()>>>>,
}

impl Inputs {
    /// The directory with an artifact's files; laid out by whoever asks first, the others wait.
    pub(super) fn lay(&self, store: &Store, artifact: &Digest) -> Result<PathBuf, crate::store::StoreError> {
        let dir = self.dir.join(artifact.to_string());
        let slot = self.laid.lock().expect("no panic holds this").entry(*artifact).or_default().clone();
        let mut problem = None;
        slot.get_or_init(|| {
            let laid = store.blobs.materialise(&store.index, artifact, &dir, Purpose::Input);
            problem = laid.err();
        });
        match problem {
            None if dir.exists() => Ok(dir),
            problem => {
                // It may be to be had later, when it has been made again.
                self.laid.lock().expect("no panic holds this").remove(artifact);
                let _ = fs::remove_dir_all(&dir);
                Err(problem.unwrap_or(crate::store::StoreError::Missing(*artifact)))
            }
        }
    }

    /// Which artifact a path lies in, and where in it.
    fn artifact(&self, path: &Path) -> Option<(Digest, PathBuf)> {
        let inside = path.strip_prefix(&self.dir).ok()?;
        let mut parts = inside.components();
        let digest = parts.next()?.as_os_str().to_str()?.parse().ok()?;
        Some((digest, parts.as_path().to_owned()))
    }
}
