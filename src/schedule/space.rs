//! Whether the disks have room for what an action made the last time: better said before hours of work than after.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::util::machine::free_bytes;
use crate::util::text::bytes;

/// The disks are asked no more often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Free bytes of the disks a build writes to.
pub(super) struct Space {
    dirs: [PathBuf; 2],
    looked: Option<(Instant, [Option<u64>; 2])>,
}

impl Space {
    /// Of the scratch directory and the store.
    pub(super) fn new(dirs: [PathBuf; 2]) -> Self {
        Self { dirs, looked: None }
    }

    /// What is wrong with starting an action that made so many bytes the last time; nothing where that is not known.
    pub(super) fn shortage(&mut self, last_bytes: u64) -> Option<Failure> {
        if self.looked.is_none_or(|(at, _)| at.elapsed() >= LOOK_AGAIN) {
            self.looked = Some((Instant::now(), [free_bytes(&self.dirs[0]), free_bytes(&self.dirs[1])]));
        }
        let (_, free) = self.looked.expect("looked above");
        let needed = needed(last_bytes);
        let short = self.dirs.iter().zip(free).find(|(_, free)| free.is_some_and(|free| free < needed));
        short.map(|(dir, free)| {
            let (needed, free) = (bytes(needed), bytes(free.unwrap_or(0)));
            let last = bytes(last_bytes);
            Failure::environment(format!(
                "the disk of {} has {free} free and {needed} are needed: the last artifact was {last}",
                dir.display()
            ))
            .help("free some space, for example by `effai cache prune --to SIZE`, and build again")
        })
    }
}

/// With a margin for logs, databases and a result that grew.
fn needed(last_bytes: u64) -> u64 {
    last_bytes + last_bytes / 8 + (1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_surely_does_not_fit_is_told_with_the_disk() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut space = Space::new([dir.path().to_owned(), dir.path().join("not/yet/there")]);
        assert!(space.shortage(0).is_none());
        let failure = space.shortage(1 << 60).expect("no disk is so large");
        assert!(failure.message.contains(&dir.path().display().to_string()), "{failure}");
        assert!(failure.message.contains("the last artifact was 1048576.0 TiB"), "{failure}");
    }
}
