//! The system's file events: which directories are watched, and what comes from them. With `interests`, which
//! reads the events, the only user of `notify`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use notify::event::{AccessKind, AccessMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::desk::Asked;
use crate::failure::Failure;

/// Something to look up for.
#[derive(Debug)]
pub(super) enum Seen {
    /// A change somewhere.
    Event(Event),
    /// A build asks.
    Asked(Asked),
    /// Events were lost: anything may have changed.
    Lost,
    /// Somebody wants the watch's attention: it is to end.
    Woken,
}

/// Directories under watch, each by itself: what is below it is not.
pub(super) struct Eyes {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    sender: Sender<Seen>,
    seen: Receiver<Seen>,
}

impl Eyes {
    pub(super) fn open() -> Result<Self, Failure> {
        let (sender, seen) = mpsc::channel();
        let tell = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let seen = match event {
                Ok(event) if is_reading(&event.kind) => return,
                Ok(event) if event.need_rescan() => Seen::Lost,
                Ok(event) => Seen::Event(event),
                Err(_) => Seen::Lost,
            };
            // Whoever watched may be gone already.
            let _ = tell.send(seen);
        })
        .map_err(|e| refused(&e, Path::new("files")))?;
        Ok(Self { watcher, watched: BTreeSet::new(), sender, seen })
    }

    /// What was seen, in order.
    pub(super) fn seen(&self) -> &Receiver<Seen> {
        &self.seen
    }

    /// Lets another thread wake the watch.
    pub(super) fn waker(&self) -> impl Fn() + Send + 'static {
        let sender = self.sender.clone();
        move || drop(sender.send(Seen::Woken))
    }

    /// Lets other threads say something that comes after what was seen before.
    pub(super) fn sender(&self) -> Sender<Seen> {
        self.sender.clone()
    }

    /// Watches these directories too; says whether any of them was not watched before. One that is not there is passed
    /// over: the directory above tells when it comes.
    pub(super) fn watch(&mut self, dirs: &BTreeSet<PathBuf>) -> Result<bool, Failure> {
        let mut added = false;
        let new: Vec<PathBuf> = dirs.difference(&self.watched).cloned().collect();
        for dir in new {
            match self.watcher.watch(&dir, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(dir);
                    added = true;
                }
                Err(_) if !dir.is_dir() => {}
                Err(error) => return Err(refused(&error, &dir)),
            }
        }
        Ok(added)
    }

    /// A directory moved or went, and all below it: what has its name now is another one.
    pub(super) fn forget(&mut self, dir: &Path) {
        let below = self.watched.range(dir.to_owned()..).take_while(|d| d.starts_with(dir));
        let gone: Vec<PathBuf> = below.cloned().collect();
        for dir in gone {
            self.watched.remove(&dir);
            // The system may have ended this one by itself.
            let _ = self.watcher.unwatch(&dir);
        }
    }
}

/// Opened, read, closed after reading: nothing changed.
fn is_reading(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

fn refused(error: &notify::Error, dir: &Path) -> Failure {
    let failure = Failure::environment(format!("cannot watch {}: {error}", dir.display()));
    match &error.kind {
        ErrorKind::MaxFilesWatch => Failure::environment(format!(
            "cannot watch {}: the system's limit of watched directories is reached",
            dir.display()
        ))
        .help("raise it: `sudo sysctl fs.inotify.max_user_watches=1048576`"),
        ErrorKind::Io(io) if io.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            failure.help("raise the number of watchers: `sudo sysctl fs.inotify.max_user_instances=1024`")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reached_limit_names_its_setting() {
        let watches = refused(&notify::Error::new(ErrorKind::MaxFilesWatch), Path::new("src"));
        assert!(watches.help.expect("help").contains("fs.inotify.max_user_watches"));
        let mfile = std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        let instances = refused(&notify::Error::io(mfile), Path::new("files"));
        assert!(instances.help.expect("help").contains("fs.inotify.max_user_instances"));
    }
}
