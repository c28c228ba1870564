//! One build of a key at a time, across processes and projects.
//!
//! A lock that is let go leaves its file, marked as spent, which goes when its process no longer uses the store: deleting
//! one of ten thousand files after the other makes every new file slow on ext4, which passes over what was just deleted.
//! Another process may have opened a file just before it goes; so whoever gets a lock looks whether the file still has its
//! name, and begins again if not.
//!
//! So a lock's file that says who has it, is not marked and is not locked was a dead process's. It says too where to wait
//! for the end of what that one ran: a file that stays locked until then.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Store;
use crate::fingerprint::Digest;
use crate::util::fault;
use crate::util::fs::{self, FsError};

/// Over the first byte of a lock's file: nobody has it. Cutting the file would cost ten times that.
const SPENT: &[u8] = b"-";

/// Holds a key until dropped. The lock is the kernel's (`flock`): it ends with its holder, however that ends.
#[derive(Debug)]
pub struct KeyLock {
    file: File,
    key: Digest,
    spent: Arc<Spent>,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        fault::step();
        // Before the lock ends: what is said then is the next holder's. Where it cannot be unsaid the file goes.
        match self.file.rewind().and_then(|()| self.file.write_all(SPENT)) {
            Ok(()) => self.spent.keys.lock().expect("no panic holds this").push(self.key),
            Err(_) => drop(fs::remove_file(&self.spent.path(&self.key))),
        }
    }
}

/// Locks that this process had and let go; their files go with it.
#[derive(Debug)]
pub(super) struct Spent {
    dir: PathBuf,
    keys: Mutex<Vec<Digest>>,
}

impl Spent {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, keys: Mutex::default() }
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.dir.join(key.to_string())
    }

    fn clear(&self) {
        let keys = std::mem::take(&mut *self.keys.lock().expect("no panic holds this"));
        // One that another process has is that one's to take away. Left behind it harms nothing.
        keys.iter().for_each(|key| drop(remove_free(&self.path(key), is_spent)));
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Store {
    /// Tries to take a key; if another process has it, says who that is. `until` is a file that stays locked after this
    /// process until everything it runs has ended; where the last holder died, its own is waited for.
    pub fn try_lock(&self, key: &Digest, who: &str, until: Option<&Path>) -> Result<Result<KeyLock, String>, FsError> {
        let path = self.spent.path(key);
        fs::create_dir_all(&self.spent.dir)?;
        loop {
            match try_lock(&path)? {
                Attempt::Locked(mut file) => {
                    fault::step();
                    let mut left = Vec::new();
                    let _ = file.read_to_end(&mut left);
                    let end = left.iter().position(|byte| *byte == b'\n');
                    if let Some(at) = end.filter(|_| !left.starts_with(SPENT)) {
                        fs::wait_unlocked(Path::new(OsStr::from_bytes(&left[at + 1..])));
                    }
                    let until = until.map_or(&[][..], |file| file.as_os_str().as_bytes());
                    let words = [who.as_bytes(), b"\n", until].concat();
                    let written = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| file.write_all(&words));
                    let lock = KeyLock { file, key: *key, spent: self.spent.clone() };
                    fs::at("write", &path, written)?;
                    return Ok(Ok(lock));
                }
                Attempt::Gone => {}
                Attempt::Taken(mut file) => {
                    let mut holder = String::new();
                    let _ = file.read_to_string(&mut holder);
                    let who = holder.lines().next().filter(|_| !holder.as_bytes().starts_with(SPENT));
                    let who = who.unwrap_or("another build");
                    return Ok(Err(who.to_owned()));
                }
            }
        }
    }

    /// Takes away the files of locks that this process had and let go; the end of it does so too.
    pub fn clear_locks(&self) {
        self.spent.clear();
    }

    /// Lock files that nobody has: their holders were killed, or let go and still run.
    pub(super) fn free_locks(&self) -> Result<Vec<PathBuf>, FsError> {
        let is_free = |path: &PathBuf| fs::open(path).is_ok_and(|file| file.try_lock().is_ok());
        Ok(fs::list(&self.spent.dir)?.into_iter().filter(is_free).collect())
    }

    /// Takes the file of a free lock away; one that somebody has by now is let be.
    pub(super) fn remove_free_lock(&self, path: &Path) -> Result<(), FsError> {
        remove_free(path, |_| true)
    }
}

/// Takes a lock's file away if nobody has it and it is as it should be for that.
fn remove_free(path: &Path, is_to_go: impl Fn(&File) -> bool) -> Result<(), FsError> {
    match try_lock(path)? {
        // While it is locked: nobody else can have a lock on a file of this name.
        Attempt::Locked(file) if is_to_go(&file) => fs::remove_file(path),
        Attempt::Locked(_) | Attempt::Taken(_) | Attempt::Gone => Ok(()),
    }
}

/// Whether nobody's name stands in it; nor does one in a file that was there no more and was made by looking.
fn is_spent(file: &File) -> bool {
    let mut first = Vec::new();
    file.take(SPENT.len() as u64).read_to_end(&mut first).is_ok() && (first.is_empty() || first == SPENT)
}

enum Attempt {
    Locked(File),
    Taken(File),
    /// It was let go while we came: its file has no name any more.
    Gone,
}

fn try_lock(path: &Path) -> Result<Attempt, FsError> {
    fault::step();
    let mut options = std::fs::OpenOptions::new();
    let file = fs::at("open", path, options.read(true).write(true).create(true).truncate(false).open(path))?;
    fault::step();
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(Attempt::Taken(file)),
        Err(TryLockError::Error(source)) => Err(FsError { attempt: "lock", path: path.to_owned(), source }),
        Ok(()) => {
            let ours = fs::at("look at", path, file.metadata())?;
            let named = path.metadata().is_ok_and(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino()));
            Ok(if named { Attempt::Locked(file) } else { Attempt::Gone })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path());
        let key = Digest::of(b"key");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let (inside, root) = (&inside, dir.path());
                scope.spawn(move || {
                    let store = Store::at(root);
                    for _ in 0..500 {
                        if let Ok(lock) = store.try_lock(&key, name, None).expect("tried") {
                            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert_eq!(fs::list(&store.spent.dir).expect("listed"), Vec::<PathBuf>::new(), "each store took its own away");
        let held = store.try_lock(&key, "me", None).expect("tried").expect("free");
        assert_eq!(store.try_lock(&key, "you", None).expect("tried").expect_err("held"), "me");
        assert_eq!(store.free_locks().expect("looked"), Vec::<PathBuf>::new());
        drop(held);
    }

    #[test]
    fn the_end_of_what_a_dead_holder_ran_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::at(dir.path());
        let key = Digest::of(b"key");
        let guard = dir.path().join("guard");
        let alive = fs::create(&guard).expect("made");
        alive.lock().expect("locked");
        fs::write(&store.spent.dir.join(key.to_string()), format!("who\n{}", guard.display()).as_bytes())
            .expect("left");
        let (said, heard) = std::sync::mpsc::channel();
        let taker = std::thread::spawn(move || {
            let lock = store.try_lock(&key, "me", None).expect("tried").expect("free");
            said.send(()).expect("heard");
            drop(lock);
        });
        assert!(heard.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "taken over too early");
        drop(alive);
        heard.recv().expect("said");
        taker.join().expect("no panic");
    }
}
