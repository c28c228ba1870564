//! Where actions run: a few directories that are used again and again, and inputs laid out once a build.
//!
//! ```text
//! .effai/scratch/PID/0/{out,work}     where an action runs; emptied for the next
//! .effai/scratch/PID/in/ARTIFACT/     an artifact that actions of this build read, read-only
//! .effai/scratch/PID/done/N/          what small actions of this build left
//! .effai/scratch/LABEL-KEY/           where an action failed, kept for a look
//! ```
//!
//! File systems are slow at making directories and at making files where many were just deleted: in a cold build of
//! small commands that was half of all time. (ext4 passes over what was deleted within the last five minutes, one by one,
//! whenever it makes something.) So little is deleted before the build ends; all of it goes then, and what a killed one
//! left goes with the next.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rayon::prelude::*;
use rustix::process::{Pid, test_kill_process};
use walkdir::WalkDir;

use super::checkpoints;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::plan::Label;
use crate::store::{Purpose, Store};
use crate::util::fs::{self, FsError};

/// What an action leaves may wait for the end of the build if it is no larger than this.
const SMALL_BYTES_MAX: u64 = 1 << 18;
const SMALL_NAMES_MAX: usize = 64;

/// How much may wait in all.
const ASIDE_BYTES_MAX: u64 = 1 << 30;
const ASIDE_MAX: u64 = 100_000;

/// The scratch directories of one build.
pub(super) struct Scratch {
    /// Of the project.
    all: PathBuf,
    /// Of this build.
    ours: PathBuf,
    /// Of actions that failed.
    kept: Vec<PathBuf>,
    free: Vec<PathBuf>,
    made: usize,
    shared: Arc<Shared>,
    /// Locked until the build has ended, and all that it started.
    alive: PathBuf,
    _locked: File,
}

/// What an action's directory is called when it is kept.
pub(super) fn name(label: &Label, key: &Digest) -> String {
    format!("{}-{}", label.as_str().replace('/', "~"), key.short())
}

impl Scratch {
    /// A build's directories. What builds left that were killed is taken away, when all they ran has ended.
    pub(super) fn open(engine: &Engine) -> Result<Self, Failure> {
        let kept = clear(engine)?;
        let all = all(&engine.root);
        let ours = all.join(std::process::id().to_string());
        let alive = ours.join("alive");
        let locked = fs::create(&alive)?;
        fs::at("lock", &alive, locked.lock_shared())?;
        let shared = Arc::new(Shared {
            dir: ours.join("in"),
            laid: Mutex::default(),
            done: ours.join("done"),
            done_count: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
        });
        fs::create_dir_all(&shared.dir)?;
        fs::create_dir_all(&shared.done)?;
        Ok(Self { all, ours, kept, free: Vec::new(), made: 0, shared, alive, _locked: locked })
    }

    /// A file that is locked until the build has ended, and all that it started.
    pub(super) fn alive(&self) -> &Path {
        &self.alive
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
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

    /// An action did not fail this time: what is kept of its last run goes.
    pub(super) fn forget(&mut self, label: &Label, key: &Digest) -> Result<(), FsError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let kept = self.all.join(name(label, key));
        self.kept.extract_if(.., |path| *path == kept).try_for_each(|path| fs::remove_dir_all(&path))
    }

    /// Keeps the directory of a failed action under a name, with the inputs it links to.
    pub(super) fn keep(&self, dir: &Path, name: &str, store: &Store) -> Result<PathBuf, Failure> {
        let kept = self.all.join(name);
        fs::remove_dir_all(&kept)?;
        fs::rename(dir, &kept)?;
        let links = WalkDir::new(kept.join("work")).into_iter().filter_map(Result::ok);
        for link in links.filter(|e| e.path_is_symlink()).map(walkdir::DirEntry::into_path) {
            let Some((artifact, rest)) = link.read_link().ok().and_then(|target| self.shared.artifact(&target)) else {
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
        let parts = |name: &str| fs::list(&self.ours.join(name)).unwrap_or_default();
        [parts("done"), parts("in")].concat().par_iter().for_each(|part| drop(fs::remove_dir_all(part)));
        let _ = fs::remove_dir_all(&self.ours);
    }
}

/// Takes away what killed builds left, when all they ran has ended. Says what else lies there, and whether other builds
/// of the project run.
pub(super) fn sweep(root: &Path) -> Result<(Vec<PathBuf>, bool), FsError> {
    let is_a_builds = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let (builds, kept): (Vec<_>, Vec<_>) =
        fs::list(&all(root))?.into_iter().partition(|path| path.file_name().is_some_and(is_a_builds));
    let mut others = false;
    for path in builds {
        let build = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
        let pid = build.and_then(|build| Pid::from_raw(build as i32));
        if build != Some(std::process::id()) && pid.is_some_and(|pid| test_kill_process(pid).is_ok()) {
            others = true;
            continue;
        }
        // A dead build's actions are being ended.
        fs::wait_unlocked(&path.join("alive"));
        fs::remove_dir_all(&path)?;
    }
    Ok((kept, others))
}

fn all(root: &Path) -> PathBuf {
    root.join(".effai/scratch")
}

/// Sweeps; and where no other build runs, takes away what actions left that have not failed since. Gives what stays.
fn clear(engine: &Engine) -> Result<Vec<PathBuf>, Failure> {
    let (mut kept, others) = sweep(&engine.root)?;
    if others {
        return Ok(kept);
    }
    checkpoints::sweep(engine)?;
    if !kept.is_empty() {
        let failed = engine.record.failed()?;
        let failed: Vec<_> = failed.iter().map(|(label, key)| all(&engine.root).join(name(label, key))).collect();
        for path in kept.extract_if(.., |path| !failed.contains(path)) {
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }?;
        }
    }
    // Written beside their names; nobody misses one that was still to be renamed.
    for dir in ["plan", "parsed"] {
        for path in fs::list(&engine.root.join(".effai").join(dir)).unwrap_or_default() {
            if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp")) {
                fs::remove_file(&path)?;
            }
        }
    }
    Ok(kept)
}

enum Size {
    Nothing,
    /// So many bytes, at most [`SMALL_BYTES_MAX`], in at most [`SMALL_NAMES_MAX`] files and directories.
    Small(u64),
    Large,
}

fn size(dir: &Path) -> Size {
    let (mut names, mut bytes) = (0, 0);
    for entry in WalkDir::new(dir).min_depth(1) {
        let Some(metadata) = entry.ok().and_then(|entry| entry.metadata().ok()) else { return Size::Large };
        names += 1;
        bytes += if metadata.is_file() { metadata.len() } else { 0 };
        if names > SMALL_NAMES_MAX || bytes > SMALL_BYTES_MAX {
            return Size::Large;
        }
    }
    if names == 0 { Size::Nothing } else { Size::Small(bytes) }
}

/// What the actions of a build share: artifacts laid out for them to read, and a place for what they leave.
pub(super) struct Shared {
    dir: PathBuf,
    laid: Mutex<HashMap<Digest, Arc<OnceLock<()>>>>,
    done: PathBuf,
    done_count: AtomicU64,
    done_bytes: AtomicU64,
}

impl Shared {
    /// Empties an action's directory. What is small is only set aside, see [`self`].
    pub(super) fn empty(&self, dir: &Path) -> Result<(), FsError> {
        for part in fs::list(dir)? {
            let bytes = match size(&part) {
                Size::Nothing => continue,
                Size::Small(bytes) => bytes,
                Size::Large => u64::MAX,
            };
            let number = self.done_count.fetch_add(1, Ordering::Relaxed);
            if number < ASIDE_MAX && self.done_bytes.load(Ordering::Relaxed).saturating_add(bytes) <= ASIDE_BYTES_MAX {
                self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
                fs::rename(&part, &self.done.join(number.to_string()))?;
                fs::create_dir_all(&part)?;
            } else {
                fs::empty_dir(&part)?;
            }
        }
        Ok(())
    }

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
