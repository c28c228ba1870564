//! `effai watch`: a build that goes on. What the plan reads is watched, and what an edit made stale is built.
//!
//! ```text
//! events -> questions of the plan that may have another answer -> a look at those -> a build, if any has
//! ```
//!
//! Only what some question reads is of interest, and only another content, name or executable bit begins a build: so what
//! builds write in `out/`, `.effai/` and the store never does, nor does a file that is saved as it was. Where it is not
//! known what changed (lost events, a directory that moved) everything is looked at again. Evidence of files counts as
//! in any build; events only say where to look.
//!
//! The engine stays open, so a build costs by what changed. It is opened anew where the recipes changed, or another
//! process built here. This module never prints: a [`Host`] is told.

mod answer;
mod ask;
mod desk;
mod eyes;
mod interests;
mod lookout;
mod news;
mod outputs;
mod react;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::action::Cancel;
use crate::engine::{self, Doubt, Engine, EngineError, Options};
use crate::event::{Event, Outcome};
use crate::fingerprint::evidence::Stat;
use crate::plan::{Index, Question};
use crate::recipe::load::{self, LoadError};
use crate::recipe::roots;
use crate::schedule::{BuildOptions, Edits, build_watched};

pub use ask::{Fresh, Question as BuildQuestion};

use answer::Answers;
use desk::Desk;
use eyes::Eyes;
use interests::Interests;
use lookout::{Lookout, Waited};
use news::News;

/// Who is told what happens.
pub trait Host {
    /// Something happened.
    fn see(&mut self, event: &Event);
    /// The project cannot be opened or built as it is; an edit may mend that.
    fn cannot(&mut self, error: &EngineError);
}

/// What to watch and how to build.
pub struct Watch {
    /// Where one stands: in the project, or in one below it.
    dir: PathBuf,
    root: PathBuf,
    options: Options,
    /// This program as it was begun.
    program: Option<Stat>,
    words: Vec<String>,
    build: BuildOptions,
    cancel: Cancel,
    lookout: Lookout,
    /// Builds ask there whether there is anything to do; none where another watch has it.
    _desk: Option<Desk>,
    /// A build or command was, by the end of the watch.
    interrupted: bool,
    /// The last build ended early, for recipes that may turn out to be as they were.
    unfinished: bool,
}

/// A project as it is open, and what of it is watched.
struct Open {
    engine: Engine,
    chosen: Vec<Index>,
    /// What the targets read and `on-change` waits for.
    questions: BTreeSet<u32>,
    /// Of the targets alone.
    read: BTreeSet<u32>,
    reactions: react::Reactions,
}

/// How watching a project as it is open ended.
enum Next {
    Reopen,
    End,
}

impl Watch {
    /// Watches the project that `dir` lies in; `words` are targets as on the command line. Ends with `cancel`, once
    /// [`Watch::waker`]'s function was called after it.
    pub fn new(
        dir: &Path,
        options: Options,
        words: Vec<String>,
        build: BuildOptions,
        cancel: Cancel,
    ) -> Result<Self, EngineError> {
        let root = roots::find(dir)?.root;
        let options = Options { resident: true, ..options };
        let mut eyes = Eyes::open()?;
        // As events tell it.
        let real = root.canonicalize().unwrap_or_else(|_| root.clone());
        let desk = Desk::open(&real, eyes.sender());
        if desk.is_some() {
            eyes.watch(&BTreeSet::from([ask::dir(&real)]))?;
        }
        let lookout = Lookout::new(eyes, &real);
        Ok(Self {
            dir: dir.to_owned(),
            root,
            options,
            program: engine::program(),
            words,
            build,
            cancel,
            lookout,
            _desk: desk,
            interrupted: false,
            unfinished: false,
        })
    }

    /// The project's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Wakes a watch that waits.
    pub fn waker(&self) -> impl Fn() + Send + 'static {
        self.lookout.eyes.waker()
    }

    /// Watches until it is cancelled. Says whether a build was interrupted by that.
    pub fn run(&mut self, host: &mut dyn Host) -> Result<bool, EngineError> {
        let mut first = true;
        loop {
            let error = match self.open(host) {
                Ok(mut open) => {
                    let next = self.follow(&mut open, host);
                    if next.is_ok() {
                        open.engine.save();
                    }
                    match next {
                        Ok(Next::Reopen) => continue,
                        Ok(Next::End) => return Ok(self.interrupted),
                        Err(_) if self.cancel.is_asked() => return Ok(true),
                        Err(error) => error,
                    }
                }
                // Words of the command line are not mended by an edit.
                Err(error) if first && !matches!(error, EngineError::Load(LoadError::Mistakes(_))) => {
                    return Err(error);
                }
                // An edit may have mended it before anybody watched.
                Err(_) if self.watch_recipes()? => continue,
                Err(error) => error,
            };
            first = false;
            host.cannot(&error);
            host.see(&Event::Stuck { message: error.to_string() });
            loop {
                match self.lookout.wait() {
                    Waited::Ended => return Ok(self.interrupted),
                    Waited::Asked(_) => host.see(&Event::Asked { fresh: false }),
                    Waited::News(_) => break,
                }
            }
        }
    }

    /// Opens the project and watches what it reads.
    fn open(&mut self, host: &mut dyn Host) -> Result<Open, EngineError> {
        let engine = Engine::open(&self.dir, &self.options)?;
        let plan = engine.plan();
        let words = if self.words.is_empty() { engine.default_words() } else { &self.words };
        let chosen = engine.select(words, &[])?;
        let reactions = react::Reactions::new(&engine)?;
        let closure = plan.closure(&reactions.with_built(&chosen));
        let read: BTreeSet<u32> = closure.iter().flat_map(|i| plan.reads(*i)).copied().collect();
        let questions: BTreeSet<u32> = read.iter().copied().chain(reactions.questions()).collect();
        let mut open = Open { engine, chosen, questions, read, reactions };
        // What is seen before it is watched may change in between: it is looked at until nothing is watched anew.
        self.lookout.interests = Interests::of(&open.engine, &open.questions);
        let mut is_seen = false;
        while self.lookout.eyes.watch(self.lookout.interests.dirs())? || !is_seen {
            is_seen = true;
            let all: Vec<u32> = open.questions.iter().copied().collect();
            open.engine.look_again(&all)?;
            self.lookout.interests = Interests::of(&open.engine, &open.questions);
        }
        self.lookout.outputs.doubt();
        open.engine.take_changed();
        open.reactions.remember(&open.engine);
        let targets = open.engine.plan().closure(&open.chosen).len();
        host.see(&Event::Watching { files: self.lookout.interests.files(), targets });
        Ok(open)
    }

    /// Builds, and builds again after each edit.
    fn follow(&mut self, open: &mut Open, host: &mut dyn Host) -> Result<Next, EngineError> {
        let mut changed_targets = true;
        loop {
            if changed_targets {
                let chosen = open.chosen.clone();
                self.build(open, &chosen, host)?;
            }
            self.react(open, host)?;
            // At once: another process that builds before this is written down finds nothing to begin with.
            open.engine.save();
            if self.cancel.is_asked() {
                return Ok(Next::End);
            }
            let Some(news) = self.news(open, host) else { return Ok(Next::End) };
            if (news.recipes && !open.engine.recipes_hold()) || open.engine.is_overtaken() {
                if !news.is_nothing() {
                    changed(&news, None, host);
                }
                return Ok(Next::Reopen);
            }
            let found = self.look(open, &news)?;
            changed_targets = self.unfinished || found.iter().any(|q| open.read.contains(q));
            if !found.is_empty() {
                changed(&news, Some((&found, open)), host);
            }
        }
    }

    /// Waits for the next burst, or until it comes out that another process built here; none if the watch is to end.
    fn news(&mut self, open: &mut Open, host: &mut dyn Host) -> Option<News> {
        // Nothing is built and nothing looked at again before this returns.
        let mut answers = Answers::default();
        loop {
            match self.lookout.wait() {
                Waited::News(news) => return Some(news),
                Waited::Asked(asked) => {
                    self.answer(open, &mut answers, asked, host);
                    if open.engine.is_overtaken() {
                        return Some(News::default());
                    }
                }
                Waited::Ended => return None,
            }
        }
    }

    /// Looks at what the news are about; the questions with another answer.
    fn look(&mut self, open: &mut Open, news: &News) -> Result<BTreeSet<u32>, EngineError> {
        for dir in &news.moved {
            self.lookout.eyes.forget(dir);
        }
        let mut questions: BTreeSet<u32> = match &news.doubt {
            Doubt::Nothing => return Ok(BTreeSet::new()),
            Doubt::Of(questions) => questions.clone(),
            Doubt::Everything => open.questions.clone(),
        };
        if news.doubt == Doubt::Everything {
            self.lookout.interests = Interests::of(&open.engine, &open.questions);
            self.lookout.eyes.watch(self.lookout.interests.dirs())?;
        }
        // Programs and revisions are watched by nobody, and few.
        let plan = open.engine.plan();
        let is_unwatched = |q: &&u32| {
            matches!(plan.question(**q as usize), Question::Tool(_) | Question::Python(..) | Question::AtRevision(_))
        };
        questions.extend(open.read.iter().filter(is_unwatched));
        let mut changed = BTreeSet::new();
        let mut again: Vec<u32> = questions.into_iter().collect();
        loop {
            let found = open.engine.look_again(&again)?;
            changed.extend(found.changed.iter().copied());
            // Also what is as it was: a build may have seen the change first, of a name that came while it went on.
            again.iter().for_each(|q| self.lookout.interests.add(&open.engine, *q));
            if !self.lookout.eyes.watch(self.lookout.interests.dirs())? {
                return Ok(changed);
            }
            // What came to lie in a new directory before it was watched.
            if news.doubt != Doubt::Everything {
                again = found.changed;
            }
        }
    }

    fn build(&mut self, open: &mut Open, chosen: &[Index], host: &mut dyn Host) -> Result<(), EngineError> {
        let mut stopped = false;
        let mut tell = |event: &Event| {
            stopped |= matches!(event, Event::Finished { outcome: Outcome::Cancelled, .. });
            host.see(event);
        };
        let (engine, lookout) = (&mut open.engine, &mut self.lookout);
        let summary = build_watched(engine, chosen, &self.build, &self.cancel, lookout, &mut tell)?;
        self.unfinished = summary.skipped > 0 && self.lookout.end_soon();
        self.interrupted |= self.cancel.is_asked() && (stopped || summary.skipped > 0);
        Ok(())
    }

    /// Watches the recipes alone; says whether any of their directories was not watched before.
    fn watch_recipes(&mut self) -> Result<bool, EngineError> {
        self.lookout.interests = Interests::recipes(&self.root, &load::reads(&self.root));
        Ok(self.lookout.eyes.watch(self.lookout.interests.dirs())?)
    }
}

/// Tells what changed: of what was looked at, what is another; of recipes, themselves.
fn changed(news: &News, found: Option<(&BTreeSet<u32>, &Open)>, host: &mut dyn Host) {
    let theirs = |readers: &BTreeSet<u32>| match found {
        Some((found, _)) => !readers.is_disjoint(found),
        None => true,
    };
    let mut names =
        news.names.iter().filter(|(_, readers)| theirs(readers)).map(|(name, _)| name.display().to_string());
    let first = names.next().or_else(|| {
        let (found, open) = found?;
        found.first().map(|q| open.engine.plan().question(*q as usize).text().to_owned())
    });
    let file = first.unwrap_or_else(|| load::PROJECT_FILE.to_owned());
    host.see(&Event::Changed { file, more: names.count() });
}
