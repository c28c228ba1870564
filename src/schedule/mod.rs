//! Runs what is stale, in order, as much at once as the pools allow.
//!
//! One loop on one thread owns all state. Worker threads each watch one action and send messages. A
//! target's state changes in `Build::settle` and `Build::start` and nowhere else:
//!
//! ```text
//! Waiting -> Known                 its key has an artifact
//! Waiting -> Ready -> Running -> Known | Failed
//! Waiting | Ready -> Skipped       something under it failed
//! Known -> Ready                   its bytes are needed and no longer in the store
//! ```

mod outlook;
mod pools;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use crate::action::{self, Cancel, Cost, Ended, Job};
use crate::engine::{Delivery, Engine, Judged};
use crate::event::{ActionEvent, Event, Outcome, Summary, Verdict};
use crate::failure::Failure;
use crate::fingerprint::{Digest, Manifest, Reason};
use crate::plan::{Index, Label};
use crate::record::{ActionRow, BuildId, TargetState, Timing, log_file};
use crate::store::{Ingested, KeyLock, KeyRow, Purpose};
use crate::util::fs;

use outlook::{Outlook, Pending};
use pools::Pools;

/// How often a key that another process builds is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A build that takes longer than this says how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to build and how.
#[derive(Clone, Debug)]
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
    /// What was named on the command line, for the record.
    pub asked: Vec<String>,
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
    let (sender, messages) = mpsc::channel();
    let closure = engine.plan.closure(chosen);
    let count = engine.plan.targets.len();
    let mut build = Build {
        chosen: chosen.iter().copied().collect(),
        dependents: dependents(engine, &closure),
        states: vec![State::Outside; count],
        artifacts: vec![None; count],
        judged: BTreeMap::new(),
        running: BTreeMap::new(),
        locked_out: BTreeMap::new(),
        said_waiting: BTreeSet::new(),
        bytes_missing: BTreeSet::new(),
        pools: Pools::new(options.jobs),
        summary: Summary::default(),
        begin: Instant::now(),
        begun_at: jiff::Timestamp::now().to_string(),
        id: None,
        ready_us: vec![0; count],
        ran: BTreeSet::new(),
        outlook: None,
        engine,
        options,
        cancel,
        tell,
        sender,
    };
    build.run(&closure, &messages)
}

fn dependents(engine: &Engine, closure: &[Index]) -> BTreeMap<Index, Vec<Index>> {
    let mut map: BTreeMap<Index, Vec<Index>> = BTreeMap::new();
    for &index in closure {
        for dependency in &engine.target(index).dependencies {
            map.entry(dependency.index).or_default().push(index);
        }
    }
    map
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
    Done(Index, Box<Done>),
}

struct Done {
    ended: Result<Ingested, Option<Failure>>,
    cost: Cost,
}

struct Running {
    key: Digest,
    manifest: Manifest,
    reasons: Vec<String>,
    started_at: String,
    start_us: u64,
    metrics: Vec<(String, Option<u64>, f64)>,
    left_out: Option<String>,
    scratch: PathBuf,
    log: PathBuf,
    _lock: KeyLock,
}

struct Build<'a> {
    engine: &'a mut Engine,
    options: &'a BuildOptions,
    cancel: &'a Cancel,
    tell: &'a mut dyn FnMut(&Event),
    chosen: BTreeSet<Index>,
    dependents: BTreeMap<Index, Vec<Index>>,
    states: Vec<State>,
    artifacts: Vec<Option<Digest>>,
    judged: BTreeMap<Index, Judged>,
    running: BTreeMap<Index, Running>,
    /// Keys another process has, and when to look again.
    locked_out: BTreeMap<Index, Instant>,
    said_waiting: BTreeSet<Index>,
    bytes_missing: BTreeSet<Index>,
    pools: Pools,
    summary: Summary,
    begin: Instant,
    begun_at: String,
    /// Its row in the record, once anything happened.
    id: Option<BuildId>,
    /// When each target became ready, from the begin.
    ready_us: Vec<u64>,
    /// Whose action ran in this build.
    ran: BTreeSet<Index>,
    outlook: Option<Outlook>,
    sender: Sender<Message>,
}

impl Build<'_> {
    fn run(&mut self, closure: &[Index], messages: &Receiver<Message>) -> Result<Summary, Failure> {
        (self.tell)(&Event::Planned { targets: closure.len() });
        for &index in closure {
            self.states[index] = State::Waiting;
        }
        for &index in closure {
            self.judge(index)?;
        }
        loop {
            if !self.cancel.is_asked() {
                self.start_what_can(closure)?;
            }
            if self.running.is_empty() && (self.locked_out.is_empty() || self.cancel.is_asked()) {
                break;
            }
            match messages.recv_timeout(LOOK_AGAIN) {
                Ok(Message::Said(index, event)) => self.hear(index, event),
                Ok(Message::Done(index, done)) => self.settle(index, *done)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            }
            self.look_ahead(closure)?;
        }
        let stuck = closure.iter().find(|i| matches!(self.states[**i], State::Waiting | State::Ready));
        if let Some(stuck) = stuck
            && self.summary.failed == 0
            && !self.cancel.is_asked()
        {
            let label = self.engine.label(*stuck);
            return Err(Failure::target(format!("a bug in effai: `{label}` never came to its turn")));
        }
        self.skip_the_rest(closure);
        self.summary.wall_ms = self.begin.elapsed().as_millis() as u64;
        if self.id.is_some() || self.summary.restored + self.summary.failed > 0 {
            let id = self.build_id()?;
            self.engine.record.end_build(id, &self.summary)?;
        }
        (self.tell)(&Event::Ended(self.summary.clone()));
        Ok(self.summary.clone())
    }

    /// Tells how far the build is and how long it may still take.
    fn look_ahead(&mut self, closure: &[Index]) -> Result<(), Failure> {
        if self.begin.elapsed() < PATIENCE || self.running.is_empty() {
            return Ok(());
        }
        let is_pending = |state: State| matches!(state, State::Waiting | State::Ready | State::Running);
        if self.outlook.is_none() {
            let to_run: Vec<Index> = closure.iter().copied().filter(|i| is_pending(self.states[*i])).collect();
            let known = self.engine.record.durations(to_run.iter().map(|i| self.engine.label(*i)))?;
            let expected = to_run.iter().filter_map(|i| Some((*i, *known.get(self.engine.label(*i))?))).collect();
            self.outlook = Some(Outlook::new(&to_run, expected, &self.dependents));
        }
        let outlook = self.outlook.as_mut().expect("made above");
        if !outlook.is_due() {
            return Ok(());
        }
        let now_us = self.begin.elapsed().as_micros() as u64;
        let pending: Vec<Pending> = closure
            .iter()
            .filter(|i| is_pending(self.states[**i]))
            .map(|&index| {
                let began = self.running.get(&index).map_or(now_us, |running| running.start_us);
                let jobs = self.pools.threads(self.engine.target(index).needs.pool);
                Pending { index, elapsed_ms: (now_us - began) / 1000, jobs }
            })
            .collect();
        let done = self.summary.built + self.summary.failed;
        let left_ms = outlook.left_ms(pending.iter().copied(), self.options.jobs);
        let (to_run, running) = (done + pending.len(), self.running.len());
        (self.tell)(&Event::Outlook { done, to_run, running, left_ms });
        Ok(())
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
        let under = &self.engine.target(index).dependencies;
        if self.states[index] != State::Waiting {
            return Ok(());
        }
        if let Some(other) = under.iter().find(|d| self.states[d.index] != State::Known) {
            let reasons = vec![format!("stands on {}", self.engine.label(other.index))];
            if !self.judged.contains_key(&index) {
                let label = self.label(index);
                (self.tell)(&Event::Verdict { label, verdict: Verdict::Waits, reasons });
            }
            return Ok(());
        }
        let mut judged = self.engine.judge(index, &self.artifacts)?;
        let forced = self.options.force_all || (self.options.force && self.chosen.contains(&index));
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
        }
        let (verdict, artifact) = (judged.verdict, judged.artifact);
        let reasons = judged.reasons.iter().map(ToString::to_string).collect();
        let label = self.label(index);
        (self.tell)(&Event::Verdict { label, verdict, reasons });
        self.judged.insert(index, judged);
        match artifact {
            Some(artifact) => self.found(index, artifact, verdict),
            None => {
                self.states[index] = State::Ready;
                self.ready_us[index] = self.now_us();
                Ok(())
            }
        }
    }

    /// A target whose artifact is known without running: put where it was asked for, or left in the store.
    fn found(&mut self, index: Index, artifact: Digest, verdict: Verdict) -> Result<(), Failure> {
        let mut placed = false;
        if self.chosen.contains(&index) {
            match self.deliver(index, &artifact)? {
                Some(now) => placed = now,
                None => return self.run_again(index),
            }
        }
        self.artifacts[index] = Some(artifact);
        self.states[index] = State::Known;
        let judged = &self.judged[&index];
        if verdict == Verdict::Cached {
            let (key, manifest) = (judged.key.expect("judged"), judged.manifest.clone().expect("judged"));
            self.engine.remember(index, TargetState { key, artifact, manifest, left_out: None })?;
        }
        let outcome = if placed || verdict == Verdict::Cached {
            self.summary.restored += 1;
            Outcome::Restored { artifact }
        } else {
            self.summary.fresh += 1;
            Outcome::Fresh
        };
        let label = self.label(index);
        (self.tell)(&Event::Finished { label, outcome });
        Ok(())
    }

    /// Puts an artifact into `out/`. Says whether anything was placed; none if the store lacks its bytes.
    fn deliver(&mut self, index: Index, artifact: &Digest) -> Result<Option<bool>, Failure> {
        let delivery = match self.engine.deliver(index, artifact)? {
            Ok(delivery) => delivery,
            Err(error) => {
                self.warn(index, error.to_string(), "it is made again");
                return Ok(None);
            }
        };
        let label = self.label(index);
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
        self.artifacts[index] = None;
        self.states[index] = State::Waiting;
        self.judge(index)
    }

    fn start_what_can(&mut self, closure: &[Index]) -> Result<(), Failure> {
        // Inputs come before what stands on them: where some must run again, another pass starts them.
        while self.start_pass(closure)? {}
        Ok(())
    }

    /// Starts what can in one pass; says whether inputs that were thought known have become ready.
    fn start_pass(&mut self, closure: &[Index]) -> Result<bool, Failure> {
        let mut again = false;
        for &index in closure {
            if self.states[index] != State::Ready || (self.summary.failed > 0 && !self.options.keep_going) {
                continue;
            }
            if self.locked_out.get(&index).is_some_and(|again| *again > Instant::now()) {
                continue;
            }
            let pool = self.engine.target(index).needs.pool;
            if !self.pools.has_room(pool) {
                continue;
            }
            // An input whose bytes are gone runs first.
            let inputs: Vec<Index> = self.engine.target(index).dependencies.iter().map(|d| d.index).collect();
            let gone: Vec<Index> = inputs
                .into_iter()
                .filter(|i| !self.artifacts[*i].is_some_and(|a| self.engine.store.blobs.has_artifact(&a)))
                .collect();
            if !gone.is_empty() {
                self.states[index] = State::Waiting;
                for other in gone {
                    if self.states[other] == State::Known {
                        // It was counted as what it seemed to be.
                        let counted = match self.judged[&other].verdict {
                            Verdict::Fresh => &mut self.summary.fresh,
                            Verdict::Cached => &mut self.summary.restored,
                            _ => &mut self.summary.built,
                        };
                        *counted = counted.saturating_sub(1);
                        self.run_again(other)?;
                        again = true;
                    }
                }
                continue;
            }
            self.start(index)?;
        }
        Ok(again)
    }

    fn start(&mut self, index: Index) -> Result<(), Failure> {
        let label = self.label(index);
        let judged = &self.judged[&index];
        let key = judged.key.expect("a ready target was judged");
        let who = format!("process {} building {label}", std::process::id());
        let lock = match self.engine.store.try_lock(&key, &who)? {
            Ok(lock) => lock,
            Err(holder) => {
                self.locked_out.insert(index, Instant::now() + LOOK_AGAIN);
                if self.said_waiting.insert(index) {
                    (self.tell)(&Event::Waiting { label, holder });
                }
                return Ok(());
            }
        };
        // Somebody else may have finished this key between the verdict and the lock.
        if self.locked_out.remove(&index).is_some()
            && let Some(artifact) = self.engine.store.index.artifact(&key)?
        {
            drop(lock);
            self.found(index, artifact, Verdict::Cached)?;
            return self.judge_dependents(index);
        }
        let judged = &self.judged[&index];
        let (manifest, reasons) = (judged.manifest.clone().expect("judged"), judged.reasons.clone());
        let name = label.as_str().replace('/', "~");
        let scratch = self.engine.root.join(".effai/scratch").join(format!("{name}-{}", key.short()));
        let log = log_file(&self.engine.root, &label);
        fs::remove_dir_all(&scratch)?;
        let job = match self.job(index, &scratch) {
            Ok(job) => job,
            Err(failure) => return self.failed(index, failure, None),
        };
        let pool = self.engine.target(index).needs.pool;
        self.pools.enter(pool);
        self.states[index] = State::Running;
        (self.tell)(&Event::Started { label });
        let started_at = jiff::Timestamp::now().to_string();
        self.build_id()?;
        self.ran.insert(index);
        let start_us = self.now_us();
        let reasons = reasons.iter().map(ToString::to_string).collect();
        let running = Running {
            key,
            manifest,
            reasons,
            started_at,
            start_us,
            metrics: Vec::new(),
            left_out: None,
            scratch,
            log: log.clone(),
            _lock: lock,
        };
        self.running.insert(index, running);
        let (sender, cancel, blobs) = (self.sender.clone(), self.cancel.clone(), self.engine.store.blobs.clone());
        std::thread::spawn(move || {
            let say = |event| drop(sender.send(Message::Said(index, event)));
            let (ended, cost) = action::run(&job, pool, &log, &cancel, &mut { say });
            let ended = match ended {
                Ended::Done => blobs.ingest(&job.out).map_err(|e| Some(e.into())),
                Ended::Failed(failure) => Err(Some(failure)),
                Ended::Cancelled => Err(None),
            };
            // The build waits for this message; if it is gone, so is the need for it.
            let _ = sender.send(Message::Done(index, Box::new(Done { ended, cost })));
        });
        Ok(())
    }

    /// The job's directories, with its inputs in place.
    fn job(&mut self, index: Index, scratch: &std::path::Path) -> Result<Job, Failure> {
        let (out, work) = (scratch.join("out"), scratch.join("work"));
        fs::create_dir_all(&out)?;
        fs::create_dir_all(&work)?;
        let target = self.engine.target(index);
        let mut inputs = BTreeMap::new();
        for dependency in &target.dependencies {
            let label = self.engine.label(dependency.index);
            let artifact = self.artifacts[dependency.index].expect("a ready target's inputs are known");
            let dir = scratch.join("in").join(label.as_str().replace(':', "~"));
            let store = &self.engine.store;
            store.blobs.materialise(&store.index, &artifact, &dir, Purpose::Input)?;
            inputs.insert(label.to_string(), dir);
        }
        let threads = self.pools.threads(target.needs.pool);
        Ok(Job { decl: target.decl.clone(), inputs, project: self.engine.root.clone(), out, scratch: work, threads })
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

    /// An action ended.
    fn settle(&mut self, index: Index, done: Done) -> Result<(), Failure> {
        let running = self.running.remove(&index).expect("it was running");
        self.pools.leave(self.engine.target(index).needs.pool);
        let ingested = match done.ended {
            Ok(ingested) => ingested,
            Err(None) => {
                self.states[index] = State::Skipped;
                fs::remove_dir_all(&running.scratch)?;
                self.record(index, &running, &done.cost, None, "cancelled", None)?;
                let label = self.label(index);
                (self.tell)(&Event::Finished { label, outcome: Outcome::Cancelled });
                return Ok(());
            }
            Err(Some(failure)) => {
                self.record(index, &running, &done.cost, None, "failed", Some(failure.message.clone()))?;
                return self.failed(index, failure, Some((running.log, running.scratch)));
            }
        };
        let artifact = ingested.artifact;
        let target = self.engine.target(index);
        let row = KeyRow {
            artifact,
            kind: target.decl.kind.clone(),
            label: target.decl.label.to_string(),
            manifest: running.manifest.clone(),
            metrics: running.metrics.iter().map(|(name, _, value)| (name.clone(), *value)).collect(),
            size: ingested.tree.size(),
            wall_ms: done.cost.wall_ms,
            cpu_ms: done.cost.cpu_ms,
            peak_bytes: done.cost.peak_bytes,
            backend: crate::backend::NAME.into(),
        };
        self.engine.store.index.remember_blobs(&ingested.new_blobs);
        // A source that was left out is no answer for other projects or machines.
        if running.left_out.is_none() {
            self.engine.store.index.put(&running.key, &row, &[])?;
        }
        self.record(index, &running, &done.cost, Some(artifact), "built", None)?;
        let label = self.label(index);
        let unchanged = self.engine.state(&label).is_some_and(|s| s.artifact == artifact);
        let state = TargetState {
            key: running.key,
            artifact,
            manifest: running.manifest.clone(),
            left_out: running.left_out.clone(),
        };
        self.engine.remember(index, state)?;
        self.artifacts[index] = Some(artifact);
        self.states[index] = State::Known;
        self.bytes_missing.remove(&index);
        if self.chosen.contains(&index) && self.deliver(index, &artifact)?.is_none() {
            let failure = Failure::environment("the store lost bytes that were just written").help("check the disk");
            return self.failed(index, failure, None);
        }
        fs::remove_dir_all(&running.scratch)?;
        self.summary.built += 1;
        let outcome = Outcome::Built {
            artifact,
            unchanged,
            wall_ms: done.cost.wall_ms,
            cpu_ms: done.cost.cpu_ms,
            peak_bytes: done.cost.peak_bytes,
            left_out: running.left_out,
        };
        (self.tell)(&Event::Finished { label, outcome });
        self.judge_dependents(index)
    }

    fn judge_dependents(&mut self, index: Index) -> Result<(), Failure> {
        // A target found known frees those on it, and so on: an explicit list, for long chains.
        let mut queue = vec![index];
        while let Some(known) = queue.pop() {
            for dependent in self.dependents.get(&known).cloned().unwrap_or_default() {
                self.judge(dependent)?;
                if self.states[dependent] == State::Known {
                    queue.push(dependent);
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, index: Index, failure: Failure, kept: Option<(PathBuf, PathBuf)>) -> Result<(), Failure> {
        self.states[index] = State::Failed;
        self.summary.failed += 1;
        let label = self.label(index);
        let relative =
            |path: PathBuf| path.strip_prefix(&self.engine.root).map(|p| p.display().to_string()).unwrap_or_default();
        let (log, scratch) = match kept {
            Some((log, scratch)) => (Some(relative(log)), Some(relative(scratch))),
            None => (None, None),
        };
        (self.tell)(&Event::Finished { label, outcome: Outcome::Failed { failure, log, scratch } });
        Ok(())
    }

    fn skip_the_rest(&mut self, closure: &[Index]) {
        for &index in closure {
            if !matches!(self.states[index], State::Waiting | State::Ready) {
                continue;
            }
            self.states[index] = State::Skipped;
            self.summary.skipped += 1;
            let because = self.engine.plan.closure(&[index]).into_iter().find(|i| self.states[*i] == State::Failed);
            if let Some(because) = because {
                let (label, because) = (self.label(index), self.label(because));
                (self.tell)(&Event::Finished { label, outcome: Outcome::Skipped { because } });
            }
        }
    }

    fn record(
        &self,
        index: Index,
        running: &Running,
        cost: &Cost,
        artifact: Option<Digest>,
        outcome: &'static str,
        message: Option<String>,
    ) -> Result<(), Failure> {
        let target = self.engine.target(index);
        let under = target.dependencies.iter().map(|d| d.index);
        let row = ActionRow {
            label: target.decl.label.clone(),
            kind: target.decl.kind.clone(),
            key: running.key,
            artifact,
            outcome,
            message,
            started_at: running.started_at.clone(),
            wall_ms: cost.wall_ms,
            cpu_ms: cost.cpu_ms,
            peak_bytes: cost.peak_bytes,
            threads: self.pools.threads(target.needs.pool),
            backend: crate::backend::NAME.into(),
            reasons: running.reasons.clone(),
            metrics: running.metrics.clone(),
            timing: Timing {
                build: self.id.expect("an action began"),
                pool: target.needs.pool.name().into(),
                ready_us: self.ready_us[index],
                start_us: running.start_us,
                end_us: self.now_us(),
                after: under.filter(|i| self.ran.contains(i)).map(|i| self.engine.label(i).to_string()).collect(),
            },
        };
        Ok(self.engine.record.add_action(&row)?)
    }
}
