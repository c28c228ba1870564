//! Events as they come, turned into what the engine should look at again: between builds by waiting, during a build when
//! it asks.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Instant;

use notify::Event;

use super::desk::Asked;
use super::eyes::{Eyes, Seen};
use super::interests::Interests;
use super::news::News;
use super::outputs::Outputs;
use crate::engine::Doubt;
use crate::schedule::Edits;

/// Builds that ask at once; more look for themselves.
const ASKED_MAX: usize = 16;

/// Why a wait ended.
pub(super) enum Waited {
    /// Files changed.
    News(News),
    /// A build asks, and all that happened before it did is known; none of it matters if there is no burst.
    Asked(Asked),
    /// The watch is to end.
    Ended,
}

pub(super) struct Lookout {
    pub(super) eyes: Eyes,
    pub(super) interests: Interests,
    pub(super) outputs: Outputs,
    /// Builds that ask, until what happened before has been seen.
    asked: VecDeque<Asked>,
    /// Builds whose turn it is.
    due: VecDeque<Asked>,
    /// A burst under way.
    news: News,
    /// What a running build was told of already; it does not follow recipes, directories and names.
    told: News,
}

impl Lookout {
    pub(super) fn new(eyes: Eyes, root: &Path) -> Self {
        Self {
            eyes,
            interests: Interests::default(),
            outputs: Outputs::new(root),
            asked: VecDeque::new(),
            due: VecDeque::new(),
            news: News::default(),
            told: News::default(),
        }
    }

    fn heed(&mut self, seen: Seen) {
        match seen {
            Seen::Woken => {}
            Seen::Asked(asked) => {
                if self.asked.len() == ASKED_MAX {
                    self.asked.pop_front();
                }
                self.asked.push_back(asked);
            }
            Seen::Lost => {
                self.outputs.forget();
                self.news.doubt = Doubt::Everything;
                self.news.recipes = true;
                self.news.touch(Instant::now());
            }
            Seen::Event(event) if event.kind.is_create() && self.is_cookie(&event) => {}
            Seen::Event(event) => {
                let before = self.news.is_nothing();
                self.outputs.heed(&event);
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

    /// Waits for the end of a burst.
    pub(super) fn wait(&mut self) -> Waited {
        if !self.told.is_nothing() {
            let told = std::mem::take(&mut self.told);
            join(&mut self.news, told);
            self.news.touch(Instant::now());
        }
        loop {
            if let Some(asked) = self.due.pop_front() {
                return Waited::Asked(asked);
            }
            let left = self.news.over_at().map(|until| until.saturating_duration_since(Instant::now()));
            let seen = match left {
                Some(left) => self.eyes.seen().recv_timeout(left),
                None => self.eyes.seen().recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match seen {
                Ok(Seen::Woken) | Err(RecvTimeoutError::Disconnected) => return Waited::Ended,
                Ok(seen) => self.heed(seen),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.news.over_at().is_some_and(|over| over <= Instant::now()) {
                return Waited::News(std::mem::take(&mut self.news));
            }
        }
    }
}

impl Lookout {
    /// Whether something happened that a look must follow.
    pub(super) fn is_disturbed(&self) -> bool {
        self.news.over_at().is_some() || !self.news.is_nothing() || !self.told.is_nothing()
    }

    /// Whether an event is what a build waits for that asks: it is its turn. Those come in order; one whose event did not
    /// come in its turn is dropped.
    fn is_cookie(&mut self, event: &Event) -> bool {
        let is_of = |asked: &Asked| event.paths.contains(&asked.cookie);
        let Some(at) = self.asked.iter().position(is_of) else { return false };
        self.asked.drain(..at);
        self.due.extend(self.asked.pop_front());
        true
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
        let news = std::mem::take(&mut self.news);
        let doubt = news.doubt.clone();
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use notify::event::{CreateKind, DataChange, EventKind, ModifyKind};

    use super::*;
    use crate::recipe::load;
    use crate::util::fs;
    use crate::watch::ask::Question;

    #[test]
    fn a_build_that_asks_has_its_turn_after_what_happened_before() {
        let dir = tempfile::tempdir().expect("made");
        let root = dir.path().canonicalize().expect("there");
        let recipe = root.join(load::PROJECT_FILE);
        fs::write(&recipe, b"").expect("written");
        let eyes = Eyes::open().expect("events");
        let sender = eyes.sender();
        let mut lookout = Lookout::new(eyes, &root);
        lookout.interests = Interests::recipes(&root, &load::reads(&root));
        let send = |seen| sender.send(seen).expect("somebody listens");
        let event = |kind, path: &Path| send(Seen::Event(Event::new(kind).add_path(path.to_owned())));
        let ask = |name: &str| {
            let (stream, _) = UnixStream::pair().expect("made");
            let question = Question::new(&root, None, &[], false).expect("a project");
            send(Seen::Asked(Asked::new(question, root.join(name), stream)));
        };
        let came = EventKind::Create(CreateKind::File);
        ask("0");
        ask("1");
        // The event of the first is lost.
        event(came, &root.join("1"));
        assert!(matches!(lookout.wait(), Waited::Asked(asked) if asked.cookie == root.join("1")));
        assert!(!lookout.is_disturbed());
        ask("2");
        event(EventKind::Modify(ModifyKind::Data(DataChange::Content)), &recipe);
        event(came, &root.join("2"));
        assert!(matches!(lookout.wait(), Waited::Asked(_)));
        assert!(lookout.is_disturbed(), "the edit came before");
        assert!(matches!(lookout.wait(), Waited::News(_)));
    }
}
