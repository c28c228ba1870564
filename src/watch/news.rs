//! What happened since somebody last looked, joined until it is quiet.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::interests::Names;
use crate::engine::Doubt;

/// A burst is over when nothing came for so long: editors write, rename and touch within a few milliseconds.
const QUIET: Duration = Duration::from_millis(50);

/// What never becomes quiet is looked at after so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Names of one burst that are kept, to be told.
const NAMES_MAX: usize = 10_000;

/// A burst.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Questions whose files had events.
    pub(super) doubt: Doubt,
    /// A recipe changed, or one came or went.
    pub(super) recipes: bool,
    /// Directories that came, went or moved.
    pub(super) moved: BTreeSet<PathBuf>,
    /// The files, from the root.
    pub(super) names: Names,
    /// The first and the last event of the burst that matters.
    since: Option<(Instant, Instant)>,
}

impl News {
    /// Whether nothing happened that matters.
    pub(super) fn is_nothing(&self) -> bool {
        self.doubt.is_nothing() && !self.recipes
    }

    pub(super) fn name(&mut self, path: &Path, readers: &[u32]) {
        if self.names.len() < NAMES_MAX || self.names.contains_key(path) {
            self.names.entry(path.to_owned()).or_default().extend(readers);
        }
    }

    /// An event was heeded that matters.
    pub(super) fn touch(&mut self, now: Instant) {
        let first = self.since.map_or(now, |(first, _)| first);
        self.since = Some((first, now));
    }

    /// When the burst is over, if there is one.
    pub(super) fn over_at(&self) -> Option<Instant> {
        self.since.map(|(first, last)| (last + QUIET).min(first + PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_when_it_is_quiet_and_at_last_anyway() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut news = News::default();
        assert_eq!(news.over_at(), None);
        news.touch(at(0));
        assert_eq!(news.over_at(), Some(at(50)));
        news.touch(at(40));
        assert_eq!(news.over_at(), Some(at(90)));
        (0..60).for_each(|i| news.touch(at(40 + 10 * i)));
        assert_eq!(news.over_at(), Some(at(500)));
    }
}
