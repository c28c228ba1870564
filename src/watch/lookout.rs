//! Events as they come, turned into what the engine should look at again: between builds by waiting, during a build when
//! it asks.

use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::eyes::{Eyes, Seen};
use super::interests::Interests;
use super::news::News;
use crate::engine::Doubt;
use crate::schedule::Edits;

/// Why a wait ended.
pub(super) enum Waited {
    /// Files changed.
    News(News),
    /// Nothing happened for as long as was asked.
    Quiet,
    /// The watch is to end.
    Ended,
}

pub(super) struct Lookout {
    pub(super) eyes: Eyes,
    pub(super) interests: Interests,
    /// A burst under way.
    news: News,
    /// What a running build was told of already, but for what it cannot follow: recipes, directories, names.
    told: News,
}

impl Lookout {
    pub(super) fn new(eyes: Eyes) -> Self {
        Self { eyes, interests: Interests::default(), news: News::default(), told: News::default() }
    }

    fn heed(&mut self, seen: Seen) {
        match seen {
            Seen::Woken => {}
            Seen::Lost => {
                self.news.doubt = Doubt::Everything;
                self.news.recipes = true;
                self.news.touch(Instant::now());
            }
            Seen::Event(event) => {
                let before = self.news.is_nothing();
                let mut news = News::default();
                self.interests.heed(&event, &mut news);
                if news.is_nothing() && before {
                    return;
                }
                if !news.is_nothing() {
                    self.news.touch(Instant::now());
                }
                join(&mut self.news, news);
            }
        }
    }

    /// Waits for the end of a burst, or until nothing happened for so long.
    pub(super) fn wait(&mut self, quiet: Option<Duration>) -> Waited {
        if !self.told.is_nothing() {
            let told = std::mem::take(&mut self.told);
            join(&mut self.news, told);
            self.news.touch(Instant::now());
        }
        let quiet = quiet.map(|q| Instant::now() + q);
        loop {
            let until = self.news.over_at().or(quiet);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let seen = match left {
                Some(left) => self.eyes.seen().recv_timeout(left),
                None => self.eyes.seen().recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match seen {
                Ok(Seen::Woken) | Err(RecvTimeoutError::Disconnected) => return Waited::Ended,
                Ok(seen) => self.heed(seen),
                Err(RecvTimeoutError::Timeout) if self.news.over_at().is_none() => return Waited::Quiet,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.news.over_at().is_some_and(|over| over <= Instant::now()) {
                return Waited::News(std::mem::take(&mut self.news));
            }
        }
    }
}

impl Edits for Lookout {
    fn take(&mut self) -> Doubt {
        while let Ok(seen) = self.eyes.seen().try_recv() {
            self.heed(seen);
        }
        if self.news.over_at().is_none_or(|over| over > Instant::now()) {
            return Doubt::Nothing;
        }
        let mut news = std::mem::take(&mut self.news);
        let doubt = news.doubt.clone();
        if news.moved.is_empty() {
            // All that this is about, the build follows.
            news.doubt = Doubt::Nothing;
        }
        join(&mut self.told, news);
        doubt
    }

    fn is_under_way(&self) -> bool {
        self.news.over_at().is_some()
    }

    fn tries_max(&self) -> u32 {
        // A slow burst of edits is looked at every half second.
        20
    }

    fn end_soon(&self) -> bool {
        self.told.recipes
    }
}

fn join(all: &mut News, more: News) {
    all.doubt.join(more.doubt);
    all.recipes |= more.recipes;
    all.moved.extend(more.moved);
    for (name, readers) in more.names {
        let readers: Vec<u32> = readers.into_iter().collect();
        all.name(&name, &readers);
    }
}
