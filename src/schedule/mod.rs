//! Runs what is stale, in order, as much at once as the pools allow.
//!
//! One loop on one thread owns all state. Worker threads each lay out, watch and take in one action and send messages.
//! A target's state changes where it is judged (`judge.rs`), started (`start.rs`) and settled (`settle.rs`):
//!
//! ```text
//! Waiting -> Known                 its key has an artifact
//! Waiting -> Asked                 its key is looked for on remotes (`remotes.rs`)
//! Asked -> Known | Ready           one of them had it, or none
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
mod checkpoints;
mod edits;
mod judge;
mod line;
mod opened;
mod outlook;
mod pools;
mod remotes;
mod scratch;
mod settle;
mod space;
mod start;
mod until;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::action::{Cancel, Processes, Runner};
use crate::engine::{Engine, Judged};
use crate::event::{ActionEvent, Event, Summary};
use crate::failure::Failure;
use crate::fingerprint::{Digest, Manifest};
use crate::plan::{Index, Label};
use crate::recipe::policy::Policy;
use crate::record::{BuildId, Past};
use crate::remote::{Heard, Opened, Remotes};
use crate::store::{Hold, KeyLock};

pub use check::check;
pub use edits::{Edits, Unwatched};
pub use opened::{Lacks, lacks};
pub use until::Until;

use batch::Batch;
use line::Line;
use outlook::{Outlook, Pending};
use pools::Pools;
use scratch::Scratch;
use space::Space;
use work::Done;

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
    /// What it may do with the store and with remotes; none where the project decides.
    pub policy: Option<Policy>,
    /// The only remote to use.
    pub remote: Option<String>,
    /// Remotes that are open from an earlier build.
    pub remotes: Arc<Opened>,
    /// Runs nothing, and puts nothing into `out/`: what remotes have comes into the store.
    pub only_brings: bool,
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
        let (keep_going, force, force_all, only_brings, tell_fresh) = (false, false, false, false, false);
        let (policy, remote, remotes, until, asked) = (None, None, Arc::default(), None, Vec::new());
        Self {
            jobs,
            keep_going,
            force,
            force_all,
            policy,
            remote,
            remotes,
            only_brings,
            tell_fresh,
            until,
            asked,
            runner,
        }
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
    chosen.iter().for_each(|index| is_chosen[*index] = !options.only_brings);
    let policy = options.policy.or(engine.settings().cache_policy).unwrap_or_default();
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
        policy,
        remotes: None,
        asked: HashMap::new(),
        asked_before: HashMap::new(),
        sending: 0,
        said_sending: false,
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
    /// Must run, unless a remote has it.
    Asked,
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
    /// A remote, about the key of a target.
    Remote(Index, Digest, Heard),
    /// A remote, about an artifact that is being sent.
    Sending(Index, Heard),
}

/// How a target is counted at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tally {
    Fresh,
    Restored,
    Built,
    Failed,
    Missing,
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
    backend: String,
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
    policy: Policy,
    /// Once one was needed.
    remotes: Option<Arc<Remotes>>,
    /// For which key remotes are asked now, and were asked last.
    asked: HashMap<Index, Digest>,
    asked_before: HashMap<Index, Digest>,
    /// Artifacts that are being sent.
    sending: usize,
    said_sending: bool,
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
            let awaits = !ends && self.waits_for_remotes();
            if !holds && !awaits && self.running.is_empty() && (self.locked_out.is_empty() || ends) {
                break;
            }
            match messages.recv_timeout(if holds { LOOK_SOON } else { LOOK_AGAIN }) {
                Ok(Message::Said(index, event)) => self.hear(index, event),
                Ok(Message::Made(index)) => self.leave_early(index),
                Ok(Message::Done(index, done)) => self.settle(index, *done)?,
                Ok(Message::Remote(index, key, heard)) => self.hear_remote(index, key, heard)?,
                Ok(Message::Sending(index, heard)) => self.hear_sending(index, heard),
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
            Some(stuck) if self.summary.failed + self.summary.missing == 0 && self.late.is_empty() && !ends => {
                let label = self.engine.label(*stuck);
                Err(Failure::target(format!("a bug in effai: `{label}` never came to its turn")))
            }
            _ => Ok(()),
        }
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
            Tally::Missing => &mut self.summary.missing,
        }
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
        let is_pending = |state: State| matches!(state, State::Waiting | State::Asked | State::Ready | State::Running);
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

    fn scratch(&mut self) -> &mut Scratch {
        self.scratch.as_mut().expect("opened before anything is judged")
    }

    fn hear(&mut self, index: Index, event: ActionEvent) {
        if let Some(running) = self.running.get_mut(&index) {
            match &event {
                ActionEvent::Metric { name, step, value } => running.metrics.push((name.clone(), *step, *value)),
                ActionEvent::Backend { name } => running.backend.clone_from(name),
                ActionEvent::LeftOut { reason } => running.left_out = Some(reason.clone()),
                ActionEvent::Again { .. } => (running.metrics, running.left_out) = (Vec::new(), None),
                _ => {}
            }
        }
        let label = self.label(index);
        (self.tell)(&Event::Said { label, what: event });
    }
}
