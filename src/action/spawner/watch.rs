//! Whether an action keeps to what it may use up.
//!
//! Time by the clock. Memory and disk by looking, the more rarely the longer a look takes: limits of the system
//! (`RLIMIT_AS`) count what programs only reserve, and each process alone. What one look misses the next one sees.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use walkdir::WalkDir;

use super::Request;
use super::family::Family;
use crate::recipe::terms::{Limit, Limits};

/// How often memory and disk are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks take at most this part of the time.
const SHARE_MAX: u32 = 20;

/// Watches one action.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    own: PathBuf,
    ends_at: Option<Instant>,
    look_at: Option<Instant>,
    stopped: Option<Limit>,
}

impl Watch {
    pub(super) fn new(request: &Request) -> Self {
        let now = Instant::now();
        let limits = request.limits;
        let looks = limits.memory.is_some() || limits.disk.is_some();
        Self {
            limits,
            own: request.own.clone().into(),
            ends_at: limits.time.and_then(|time| now.checked_add(Duration::try_from_secs_f64(time).ok()?)),
            look_at: looks.then_some(now + LOOK_EVERY),
            stopped: None,
        }
    }

    /// When it wants to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.stopped {
            Some(_) => None,
            None => [self.ends_at, self.look_at].into_iter().flatten().min(),
        }
    }

    /// The limit it was ended for.
    pub(super) fn stopped(&self) -> Option<Limit> {
        self.stopped
    }

    /// The limit that is reached now; each action is told of one once.
    pub(super) fn look(&mut self, family: &Family, firsts: &[Pid]) -> Option<Limit> {
        let now = Instant::now();
        if self.stopped.is_some() {
            return None;
        }
        if self.ends_at.is_some_and(|at| at <= now) {
            self.stopped = Some(Limit::Time);
        } else if self.look_at.is_some_and(|at| at <= now) {
            if self.limits.memory.is_some_and(|limit| family.holds_more(limit, firsts)) {
                self.stopped = Some(Limit::Memory);
            } else if self.limits.disk.is_some_and(|limit| lies_more(&self.own, limit)) {
                self.stopped = Some(Limit::Disk);
            }
            let end = Instant::now();
            self.look_at = Some(end + LOOK_EVERY.max((end - now) * SHARE_MAX));
        }
        self.stopped
    }
}

/// Whether more than so many bytes lie on the disk below a directory. Links are not followed.
fn lies_more(dir: &Path, limit: u64) -> bool {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in WalkDir::new(dir).into_iter().flatten() {
        // One that has gone meanwhile takes no space. Blocks are of 512 bytes, whatever the file system's are.
        bytes += entry.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        if bytes > limit {
            return true;
        }
    }
    false
}
