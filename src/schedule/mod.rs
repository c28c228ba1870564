//! Runs what is stale, in order, as much at once as the pools allow.
//!
//! One loop on one thread owns all state. Worker threads each lay out, watch and take in one action and send messages.
//! A target's state changes in `Build::settle` and `Build::start` and nowhere else:
//!
//! ```text
//! Waiting -> Known                 its key has an artifact
//! Waiting -> Ready -> Running -> Known | Failed
//! Waiting | Ready -> Skipped       something under it failed, or it is too late (`--until`)
//! Known -> Ready                   its bytes are needed and no longer in the store
//! any   -> Waiting                 what it reads or stands on changed meanwhile (`Build::reopen`)
//! ```
//!
//! Nothing is recorded under a key whose files changed while its action ran: when an action ends, what it reads is looked
//! at once more, and if any of it was written to since it was judged, the target is judged again. A build that is
//! watched is told of edits at once ([`Edits`]) and stops the actions that an edit made stale, and no others.
//!
//! What can run waits in line: those with the longest way to the end before the others, by the durations of earlier
//! runs. What ended is written down in batches, its blobs synced first; a batch holds its keys' locks, so another
//! process that waits for one finds the key in the index and does not run it again.

mod batch;
mod check;
mod edits;
mod line;
mod outlook;
mod pools;
mod scratch;
mod settle;
mod space;
mod until;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::action::{Cancel, Processes, Runner};
use crate::engine::{Delivery, Engine, Judged};
use crate::event::{ActionEvent, Event, Outcome, Summary, Verdict};
use crate::failure::{Class, Failure};
use crate::fingerprint::{Digest, Manifest, Reason};
use crate::plan::{Index, Label};
use crate::record::{BuildId, Past, TargetState, log_file};
use crate::store::{Hold, KeyLock};

pub use check::check;
pub use edits::{Edits, Unwatched};
pub use until::Until;

use batch::Batch;
use line::Line;
use outlook::{Outlook, Pending};
use pools::Pools;
use scratch::Scratch;
use space::Space;
use work::{Done, Work};

/// How often a key that another process builds is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often it is looked whether files are still being written.
const LOOK_SOON: Duration = Duration::from_millis(20);

/// Up to so many targets are asked for their pasts one by one.
const FEW: usize = 256;

/// A build that takes longer than this says how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to build and how.
#[derive(Clone)]
pub struct BuildOptions {
    /// Actions at once, and threads for one that uses the whole machine.
    pub jobs: usize,
    /// Go on with what does not depend on a failure.
    pub keep_going: bool,
    /// Run the named targets whatever their state.
    pub force: bool,
    /// Run everything under them too.
    pub force_all: bool,
    /// Do not look for artifacts of other runs, here or elsewhere.
    pub no_cache: bool,
    /// Tell of each target that is fresh; otherwise they are only counted.
    pub tell_fresh: bool,
    /// When no action is begun any more.
    pub until: Option<Until>,
    /// What was named on the command line, for the record.
    pub asked: Vec<String>,
    /// How actions are run.
    pub runner: Arc<dyn Runner>,
}

impl BuildOptions {
    /// An ordinary build with so many jobs.
    pub fn new(jobs: usize) -> Self {
        let runner = Arc::new(Processes::default());
        let (keep_going, force, force_all, no_cache, tell_fresh) = (false, false, false, false, false);
        let (until, asked) = (None, Vec::new());
        Self { jobs, keep_going, force, force_all, no_cache, tell_fresh, until, asked, runner }
    }
}

/// Builds the chosen targets; tells everything that happens. The result counts failures; an `Err` is
/// something that stopped the build itself.
pub fn build(
    engine: &mut Engine,
    chosen: &[Index],
    options: &BuildOptions,
    cancel: &Cancel,
    tell: &mut dyn FnMut(&Event),
) -> Result<Summary, Failure> {
    build_watched(engine, chosen, options, cancel, &mut Unwatched, tell)
}

/// Builds like [`build`], and follows edits while it goes on.
pub fn build_watched(
    engine: &mut Engine,
    chosen: &[Index],
    options: &BuildOptions,
    cancel: &Cancel,
    edits: &mut dyn Edits,
    tell: &mut dyn FnMut(&Event),
) -> Result<Summary, Failure> {
    let (sender, messages) = mpsc::channel();
    let closure = engine.plan().closure(chosen);
    let count = engine.plan().len();
    let mut is_chosen = vec![false; count];
    chosen.iter().for_each(|index| is_chosen[*index] = true);
    let mut build = Build {
        chosen: is_chosen,
        closure,
        open: Vec::new(),
        tallies: HashMap::new(),
        tries: HashMap::new(),
        dependents: HashMap::new(),
        states: vec![State::Outside; count],
        artifacts: vec![None; count],
        judged: HashMap::new(),
        running: BTreeMap::new(),
        locked_out: BTreeMap::new(),
        twins: HashMap::new(),
        late: BTreeSet::new(),
        said_waiting: BTreeSet::new(),
        bytes_missing: BTreeSet::new(),
        pools: Pools::new(options.jobs),
        space: Space::new([engine.root.join(".effai/scratch"), engine.store.root().to_owned()]),
        line: Line::default(),
        batch: Batch::default(),
        hold: None,
        scratch: None,
        summary: Summary::default(),
        begin: Instant::now(),
        begun_at: jiff::Timestamp::now().to_string(),
        id: None,
        ready_us: HashMap::new(),
        ran: BTreeSet::new(),
        outlook: None,
        engine: &mut *engine,
        options,
        cancel,
        edits,
        tell: &mut *tell,
        sender,
    };
    let summary = build.run(&messages)?;
    // It no longer holds the store.
    drop(build);
    engine.store.clear_locks();
    if summary.built > 0 {
        match engine.prune_to_size() {
            Ok(pruned) => pruned.iter().for_each(tell),
            // The build is as good as without it.
            Err(failure) => tell(&Event::NotPruned(failure)),
        }
    }
    Ok(summary)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not asked for.
    Outside,
    /// Stands on something whose artifact is not known yet.
    Waiting,
    /// Must run, and can.
    Ready,
    Running,
    /// Has an artifact.
    Known,
    Failed,
    Skipped,
}

enum Message {
    Said(Index, ActionEvent),
    /// It ended well; its output is being taken in.
    Made(Index),
    Done(Index, Box<Done>),
}

/// How a target is counted at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tally {
    Fresh,
    Restored,
    Built,
    Failed,
}

struct Running {
    /// Asks this action alone to end.
    cancel: Cancel,
    /// A file it reads, or one that decides what it stands on, changed since it was judged.
    outdated: bool,
    /// What it counts for in its pool, until it has left.
    memory: u64,
    has_left: bool,
    key: Digest,
    manifest: Manifest,
    reasons: Vec<String>,
    started_at: String,
    start_us: u64,
    metrics: Vec<(String, Option<u64>, f64)>,
    left_out: Option<String>,
    scratch: PathBuf,
    log: PathBuf,
    lock: KeyLock,
}

struct Build<'a> {
    engine: &'a mut Engine,
    options: &'a BuildOptions,
    cancel: &'a Cancel,
    edits: &'a mut dyn Edits,
    tell: &'a mut dyn FnMut(&Event),
    /// By target.
    chosen: Vec<bool>,
    /// The chosen and all they stand on, in topological order.
    closure: Vec<Index>,
    /// Those that may have to run, likewise.
    open: Vec<Index>,
    /// How targets that were open are counted.
    tallies: HashMap<Index, Tally>,
    /// How often an action ended that its files had changed under.
    tries: HashMap<Index, u32>,
    /// Who stands on a target, of those in `open`.
    dependents: HashMap<Index, Vec<Index>>,
    states: Vec<State>,
    artifacts: Vec<Option<Digest>>,
    judged: HashMap<Index, Judged>,
    running: BTreeMap<Index, Running>,
    /// Keys another process has, and when to look again.
    locked_out: BTreeMap<Index, Instant>,
    /// By a key that runs in this build: other targets of that key.
    twins: HashMap<Digest, Vec<Index>>,
    /// Ready, but not begun for the time.
    late: BTreeSet<Index>,
    said_waiting: BTreeSet<Index>,
    bytes_missing: BTreeSet<Index>,
    pools: Pools,
    space: Space,
    line: Line,
    batch: Batch,
    /// Blobs stay while there is anything to do.
    hold: Option<Hold>,
    /// Where actions run, likewise.
    scratch: Option<Scratch>,
    summary: Summary,
    begin: Instant,
    begun_at: String,
    /// Its row in the record, once anything happened.
    id: Option<BuildId>,
    /// When each target became ready, from the begin.
    ready_us: HashMap<Index, u64>,
    /// Whose action ran in this build.
    ran: BTreeSet<Index>,
    outlook: Option<Outlook>,
    sender: Sender<Message>,
}

impl Build<'_> {
    fn run(&mut self, messages: &Receiver<Message>) -> Result<Summary, Failure> {
        (self.tell)(&Event::Planned { targets: self.closure.len() });
        self.engine.look(&self.closure)?;
        let chosen: Vec<Index> = self.closure.iter().copied().filter(|i| self.chosen[*i]).collect();
        self.engine.look_at_outputs(&chosen);
        let ended = self.walk(messages);
        if ended.is_err() {
            self.stop_all(messages);
        }
        // What was finished before an error is kept.
        let flushed = self.batch.flush(self.engine);
        ended.and(flushed)?;
        self.skip_the_rest();
        self.engine.keep()?;
        self.summary.wall_ms = self.begin.elapsed().as_millis() as u64;
        if self.id.is_some() || self.summary.restored + self.summary.failed > 0 {
            let id = self.build_id()?;
            self.engine.record.end_build(id, &self.summary)?;
        }
        (self.tell)(&Event::Ended(self.summary.clone()));
        Ok(self.summary.clone())
    }

    fn walk(&mut self, messages: &Receiver<Message>) -> Result<(), Failure> {
        for at in 0..self.closure.len() {
            let index = self.closure[at];
            self.states[index] = State::Waiting;
            if !self.keeps(index)? {
                self.open.push(index);
            }
        }
        if self.open.is_empty() {
            // A build may have been killed when it had done everything.
            scratch::sweep(&self.engine.root)?;
            return Ok(());
        }
        self.hold = Some(self.engine.store.enter(&self.engine.root)?);
        self.scratch = Some(Scratch::open(self.engine)?);
        self.plan_ahead()?;
        self.judge_open()?;
        loop {
            self.follow_edits()?;
            let ends = self.cancel.is_asked() || self.edits.end_soon();
            if self.cancel.is_asked() {
                self.running.values().filter(|r| !r.cancel.is_asked()).for_each(|r| r.cancel.ask());
            }
            let holds = self.edits.is_under_way() && !ends;
            if !ends && !holds {
                self.start_what_can()?;
            }
            if !holds && self.running.is_empty() && (self.locked_out.is_empty() || ends) {
                break;
            }
            match messages.recv_timeout(if holds { LOOK_SOON } else { LOOK_AGAIN }) {
                Ok(Message::Said(index, event)) => self.hear(index, event),
                Ok(Message::Made(index)) => self.leave_early(index),
                Ok(Message::Done(index, done)) => self.settle(index, *done)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            }
            if self.batch.is_due() {
                self.batch.flush(self.engine)?;
            }
            self.look_ahead();
        }
        let ends = self.cancel.is_asked() || self.edits.end_soon();
        let stuck = self.open.iter().find(|i| matches!(self.states[**i], State::Waiting | State::Ready));
        match stuck {
            Some(stuck) if self.summary.failed == 0 && self.late.is_empty() && !ends => {
                let label = self.engine.label(*stuck);
                Err(Failure::target(format!("a bug in effai: `{label}` never came to its turn")))
            }
            _ => Ok(()),
        }
    }

    fn judge_open(&mut self) -> Result<(), Failure> {
        (0..self.open.len()).try_for_each(|at| self.judge(self.open[at]))
    }

    /// The build itself cannot go on: nothing it began goes on without it.
    fn stop_all(&mut self, messages: &Receiver<Message>) {
        self.running.values().for_each(|running| running.cancel.ask());
        while !self.running.is_empty() {
            if let Ok(Message::Done(index, _)) = messages.recv() {
                self.running.remove(&index);
            }
        }
    }

    /// Counts a target as ended so, and no longer otherwise.
    fn count(&mut self, index: Index, tally: Tally) {
        self.uncount(index);
        self.tallies.insert(index, tally);
        *self.counter(tally) += 1;
    }

    fn uncount(&mut self, index: Index) {
        // One that was known without being judged is in no list.
        let known = (self.states[index] == State::Known).then_some(Tally::Fresh);
        if let Some(tally) = self.tallies.remove(&index).or(known) {
            *self.counter(tally) -= 1;
        }
    }

    fn counter(&mut self, tally: Tally) -> &mut usize {
        match tally {
            Tally::Fresh => &mut self.summary.fresh,
            Tally::Restored => &mut self.summary.restored,
            Tally::Built => &mut self.summary.built,
            Tally::Failed => &mut self.summary.failed,
        }
    }

    /// Whether a target is known without being judged: nothing it reads or stands on changed, nobody forces it, and
    /// what was asked for lies where it should.
    fn keeps(&mut self, index: Index) -> Result<bool, Failure> {
        if self.options.force_all || (self.options.force && self.chosen[index]) {
            return Ok(false);
        }
        let Some((_, artifact)) = self.engine.unchanged(index, &self.artifacts) else { return Ok(false) };
        if self.chosen[index] && !self.engine.lies_in_out(index, &artifact) {
            return Ok(false);
        }
        self.artifacts[index] = Some(artifact);
        self.states[index] = State::Known;
        self.summary.fresh += 1;
        if self.options.tell_fresh {
            let label = self.label(index);
            (self.tell)(&Event::Finished { label, outcome: Outcome::Fresh });
        }
        Ok(true)
    }

    /// Of the targets that may have to run: who waits for whom, and how long the way to the end is from each.
    fn plan_ahead(&mut self) -> Result<(), Failure> {
        self.dependents.clear();
        self.outlook = None;
        for &index in &self.open {
            for dependency in self.engine.plan().dependencies(index) {
                self.dependents.entry(dependency.index).or_default().push(index);
            }
        }
        let record = &self.engine.record;
        let pasts = if self.open.len() > FEW { record.pasts()? } else { HashMap::new() };
        let past = |i: Index| match self.open.len() > FEW {
            true => pasts.get(self.engine.plan().name(i)).copied(),
            false => record.past(&self.engine.label(i)),
        };
        self.line = Line::new(&self.open, &self.dependents, |i| past(i).unwrap_or(Past::UNKNOWN));
        Ok(())
    }

    /// Tells how far the build is and how long it may still take.
    fn look_ahead(&mut self) {
        if self.begin.elapsed() < PATIENCE || self.running.is_empty() {
            return;
        }
        let is_pending = |state: State| matches!(state, State::Waiting | State::Ready | State::Running);
        if self.outlook.is_none() {
            let to_run: Vec<Index> = self.open.iter().copied().filter(|i| is_pending(self.states[*i])).collect();
            let expected = to_run.iter().filter_map(|i| Some((*i, self.line.duration(*i)?))).collect();
            self.outlook = Some(Outlook::new(&to_run, expected, &self.dependents));
        }
        let outlook = self.outlook.as_mut().expect("made above");
        if !outlook.is_due() {
            return;
        }
        let now_us = self.begin.elapsed().as_micros() as u64;
        let pending: Vec<Pending> = self
            .open
            .iter()
            .filter(|i| is_pending(self.states[**i]))
            .map(|&index| {
                let began = self.running.get(&index).map_or(now_us, |running| running.start_us);
                let jobs = self.pools.threads(self.engine.plan().needs(index).pool);
                Pending { index, elapsed_ms: (now_us - began) / 1000, jobs }
            })
            .collect();
        let done = self.summary.built + self.summary.failed;
        let left_ms = outlook.left_ms(pending.iter().copied(), self.options.jobs);
        let (to_run, running) = (done + pending.len(), self.running.len());
        (self.tell)(&Event::Outlook { done, to_run, running, left_ms });
    }

    /// The number of this build in the record; its row is made when first asked for.
    fn build_id(&mut self) -> Result<BuildId, Failure> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let id = self.engine.record.begin_build(&self.begun_at, &self.options.asked, self.options.jobs)?;
        self.id = Some(id);
        Ok(id)
    }

    /// Microseconds since the build began.
    fn now_us(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    fn label(&self, index: Index) -> Label {
        self.engine.label(index).clone()
    }

    /// Judges a waiting target if everything under it is known.
    fn judge(&mut self, index: Index) -> Result<(), Failure> {
        if self.states[index] != State::Waiting {
            return Ok(());
        }
        let unknown = self.engine.plan().dependencies(index).find(|d| self.states[d.index] != State::Known);
        if let Some(other) = unknown {
            let reasons = vec![format!("stands on {}", self.engine.label(other.index))];
            if !self.judged.contains_key(&index) {
                let label = self.label(index);
                (self.tell)(&Event::Verdict { label, verdict: Verdict::Waits, reasons });
            }
            return Ok(());
        }
        let mut judged = match self.engine.judge(index, &self.artifacts) {
            Ok(judged) => judged,
            // A file that is not there is its readers' trouble, and may be there again when the build is over.
            Err(mut failure) if failure.class == Class::User => {
                let whose = format!("{}: ", self.engine.plan().name(index));
                failure.message = failure.message.trim_start_matches(&whose).to_owned();
                return self.failed(index, failure, None);
            }
            Err(failure) => return Err(failure),
        };
        let forced = self.options.force_all || (self.options.force && self.chosen[index]);
        if forced {
            judged.reasons = vec![Reason::Forced];
        } else if self.bytes_missing.contains(&index) {
            judged.reasons = vec![Reason::BytesMissing];
        } else if self.options.no_cache && judged.verdict == Verdict::Cached {
            judged.reasons = vec![Reason::NeverBuilt];
        }
        if !judged.reasons.is_empty() {
            judged.verdict = Verdict::Stale;
            judged.artifact = None;
            // One that nothing changed under was judged without a look at its facts.
            if judged.manifest.is_none() {
                judged.manifest = Some(self.engine.manifest(index, &self.artifacts)?);
            }
        }
        let (verdict, artifact) = (judged.verdict, judged.artifact);
        let reasons = judged.reasons.iter().map(ToString::to_string).collect();
        let label = self.label(index);
        if verdict != Verdict::Fresh || self.options.tell_fresh {
            (self.tell)(&Event::Verdict { label, verdict, reasons });
        }
        self.judged.insert(index, judged);
        match artifact {
            Some(artifact) => self.found(index, artifact, verdict),
            None => self.make_ready(index),
        }
    }

    /// A target whose artifact is known without running: put where it was asked for, or left in the store.
    fn found(&mut self, index: Index, artifact: Digest, verdict: Verdict) -> Result<(), Failure> {
        let mut placed = false;
        if self.chosen[index] {
            match self.deliver(index, &artifact)? {
                Some(now) => placed = now,
                None => return self.run_again(index),
            }
        }
        self.artifacts[index] = Some(artifact);
        let judged = &self.judged[&index];
        let (key, manifest) = (judged.key.expect("judged"), judged.manifest.clone());
        let label = self.label(index);
        if verdict == Verdict::Cached {
            let manifest = manifest.expect("what is cached was judged by its facts");
            self.engine.know(index, key, artifact, false);
            self.batch.restored(label, TargetState { key, artifact, manifest, left_out: None });
        } else {
            let left_out = self.engine.left_out(index)?.is_some();
            self.engine.know(index, key, artifact, left_out);
        }
        let outcome = if placed || verdict == Verdict::Cached {
            self.count(index, Tally::Restored);
            Outcome::Restored { artifact }
        } else {
            self.count(index, Tally::Fresh);
            Outcome::Fresh
        };
        self.states[index] = State::Known;
        if outcome != Outcome::Fresh || self.options.tell_fresh {
            let label = self.label(index);
            (self.tell)(&Event::Finished { label, outcome });
        }
        Ok(())
    }

    fn make_ready(&mut self, index: Index) -> Result<(), Failure> {
        let tries_max = self.edits.tries_max();
        if self.tries.get(&index).is_some_and(|tries| *tries >= tries_max) {
            let text = format!("a file it reads changed each of the {tries_max} times it ran");
            let help = "an action must not write to the project's files; or wait until nothing else does";
            return self.failed(index, Failure::user(text).help(help), None);
        }
        self.states[index] = State::Ready;
        // Before the first is ready: what is set up then is no time that an action waits in line.
        let alive = self.scratch().alive().to_owned();
        self.options.runner.begin(&alive);
        self.ready_us.insert(index, self.now_us());
        self.line.enter(self.engine.plan().needs(index).pool, index);
        Ok(())
    }

    /// Puts an artifact into `out/`. Says whether anything was placed; none if the store lacks its bytes.
    fn deliver(&mut self, index: Index, artifact: &Digest) -> Result<Option<bool>, Failure> {
        let (delivery, placed) = match self.engine.deliver(index, artifact)? {
            Ok(delivered) => delivered,
            Err(error) => {
                self.warn(index, error.to_string(), "it is made again");
                return Ok(None);
            }
        };
        let label = self.label(index);
        if !placed.is_empty() {
            self.batch.placed(label.clone(), *artifact, placed);
        }
        match &delivery {
            Delivery::There | Delivery::Placed => {}
            Delivery::Edited(files) => {
                let files: Vec<String> = files.iter().map(|f| format!("out/{label}/{}", f.display())).collect();
                let help = format!("builds use the original; `rm` it and build again to have that back: {}", files[0]);
                self.warn(index, format!("edited by hand: {}", files.join(", ")), &help);
            }
            Delivery::PlacedAside(dir) => {
                let text = format!("out/{label} held files of yours; they are kept in {}", dir.display());
                self.warn(index, text, "");
            }
        }
        Ok(Some(matches!(delivery, Delivery::Placed | Delivery::PlacedAside(_))))
    }

    fn warn(&mut self, index: Index, text: String, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        let label = self.label(index);
        (self.tell)(&Event::Said { label, what: ActionEvent::Warning { text, help } });
    }

    /// The bytes of a known artifact are gone: it must run, and what waits on it waits again.
    fn run_again(&mut self, index: Index) -> Result<(), Failure> {
        self.bytes_missing.insert(index);
        self.engine.forget(index);
        self.artifacts[index] = None;
        self.states[index] = State::Waiting;
        self.open_again(index);
        for dependent in self.dependents.get(&index).cloned().unwrap_or_default() {
            if self.states[dependent] == State::Ready {
                self.states[dependent] = State::Waiting;
                self.locked_out.remove(&dependent);
            }
        }
        self.judge(index)
    }

    /// A target that was known without being judged may have to run after all.
    fn open_again(&mut self, index: Index) {
        let Err(at) = self.open.binary_search(&index) else { return };
        self.open.insert(at, index);
        for dependency in self.engine.plan().dependencies(index) {
            self.dependents.entry(dependency.index).or_default().push(index);
        }
    }

    fn start_what_can(&mut self) -> Result<(), Failure> {
        let has_stopped = |build: &Self| build.summary.failed > 0 && !build.options.keep_going;
        if has_stopped(self) {
            return Ok(());
        }
        let now = Instant::now();
        let again: Vec<Index> = self.locked_out.iter().filter(|(_, at)| **at <= now).map(|(i, _)| *i).collect();
        for index in again {
            self.line.enter(self.engine.plan().needs(index).pool, index);
        }
        while !has_stopped(self)
            && let Some(index) = self.line.next(&self.pools)
        {
            if self.is_too_late(index) {
                self.locked_out.remove(&index);
                self.late.insert(index);
            } else {
                self.start(index)?;
            }
        }
        Ok(())
    }

    /// Whether a target's action may not begin any more; time only makes that truer.
    fn is_too_late(&self, index: Index) -> bool {
        let until = self.options.until.as_ref();
        until.is_some_and(|until| !until.leaves(jiff::Timestamp::now(), self.line.duration(index)))
    }

    /// Whether a target runs although some store may have its artifact.
    fn must_run(&self, index: Index) -> bool {
        let forced = self.options.force_all || (self.options.force && self.chosen[index]);
        forced || self.options.no_cache || self.bytes_missing.contains(&index)
    }

    fn start(&mut self, index: Index) -> Result<(), Failure> {
        // What it stands on may be made again since it came into line; then it comes once more.
        if self.states[index] != State::Ready {
            return Ok(());
        }
        let label = self.label(index);
        let judged = &self.judged[&index];
        let key = judged.key.expect("a ready target was judged");
        // Another target of this build, or another process, may have finished this key since the verdict.
        if self.running.values().any(|running| running.key == key) {
            self.twins.entry(key).or_default().push(index);
            return Ok(());
        }
        let mut done = self.batch.artifact(&key);
        let mut lock = None;
        if done.is_none() {
            let who = format!("process {} building {label} in {}", std::process::id(), self.engine.root.display());
            let alive = self.scratch().alive().to_owned();
            lock = match self.engine.store.try_lock(&key, &who, Some(&alive))? {
                Ok(lock) => Some(lock),
                Err(holder) => {
                    self.locked_out.insert(index, Instant::now() + LOOK_AGAIN);
                    if self.said_waiting.insert(index) {
                        (self.tell)(&Event::Waiting { label, holder });
                    }
                    return Ok(());
                }
            };
            let waited = self.locked_out.remove(&index).is_some();
            if waited || !self.must_run(index) {
                done = self.engine.store.index.artifact(&key)?;
            }
        }
        if let Some(artifact) = done {
            drop(lock);
            self.locked_out.remove(&index);
            self.found(index, artifact, Verdict::Cached)?;
            return self.judge_dependents(index);
        }
        let lock = lock.expect("taken above");
        let last_bytes = self.engine.last_size(&label)?;
        if let Some(failure) = last_bytes.and_then(|bytes| self.space.shortage(bytes)) {
            return self.failed(index, failure, None);
        }
        let start_us = self.now_us();
        self.engine.begin_changes();
        let judged = &self.judged[&index];
        let (manifest, reasons) = (judged.manifest.clone().expect("judged"), judged.reasons.clone());
        let scratch = self.scratch().take()?;
        let log = log_file(&self.engine.root, &label);
        let pool = self.engine.plan().needs(index).pool;
        let memory = self.line.memory(index);
        self.pools.enter(pool, memory);
        self.states[index] = State::Running;
        (self.tell)(&Event::Started { label });
        let threads = self.pools.threads(pool);
        let shared = self.scratch().shared();
        let work = Work::new(self.engine, index, &self.artifacts, threads, shared, &scratch, &log)?;
        let started_at = jiff::Timestamp::now().to_string();
        self.build_id()?;
        self.ran.insert(index);
        let reasons = reasons.iter().map(ToString::to_string).collect();
        let metrics = Vec::new();
        let left_out = None;
        let (cancel, outdated, has_left) = (Cancel::default(), false, false);
        let (sender, runner, stop) = (self.sender.clone(), self.options.runner.clone(), cancel.clone());
        let running = Running {
            cancel,
            outdated,
            memory,
            has_left,
            key,
            manifest,
            reasons,
            started_at,
            start_us,
            metrics,
            left_out,
            scratch,
            log,
            lock,
        };
        self.running.insert(index, running);
        std::thread::spawn(move || {
            let say = |event| drop(sender.send(Message::Said(index, event)));
            let made = || drop(sender.send(Message::Made(index)));
            let done = work.run(&*runner, &stop, &mut { say }, made);
            // The build waits for this message; if it is gone, so is the need for it.
            let _ = sender.send(Message::Done(index, Box::new(done)));
        });
        Ok(())
    }

    fn scratch(&mut self) -> &mut Scratch {
        self.scratch.as_mut().expect("opened before anything is judged")
    }

    fn hear(&mut self, index: Index, event: ActionEvent) {
        if let Some(running) = self.running.get_mut(&index) {
            match &event {
                ActionEvent::Metric { name, step, value } => running.metrics.push((name.clone(), *step, *value)),
                ActionEvent::LeftOut { reason } => running.left_out = Some(reason.clone()),
                _ => {}
            }
        }
        let label = self.label(index);
        (self.tell)(&Event::Said { label, what: event });
    }
}
