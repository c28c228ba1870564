//! What becomes of an action that ended, and of those that never began.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::work::{Done, Problem};
use super::{Build, Running, State, Tally, scratch};
use crate::action::{Cost, held_by};
use crate::event::{Event, Outcome};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::kind::Pool;
use crate::plan::Index;
use crate::record::{ActionRow, TargetState, Timing};
use crate::store::KeyRow;

impl Build<'_> {
    /// A program ended well and its output is being taken in: the next begins beside that. Not so what uses the whole
    /// machine, which may measure it.
    pub(super) fn leave_early(&mut self, index: Index) {
        let pool = self.engine.plan().needs(index).pool;
        let running = self.running.get_mut(&index).expect("it is not settled yet");
        if pool == Pool::Cpu {
            running.has_left = true;
            self.pools.leave(pool, running.memory);
        }
    }

    /// An action ended.
    pub(super) fn settle(&mut self, index: Index, done: Done) -> Result<(), Failure> {
        let running = self.running.remove(&index).expect("it was running");
        if !running.has_left {
            self.pools.leave(self.engine.plan().needs(index).pool, running.memory);
        }
        for twin in self.twins.remove(&running.key).unwrap_or_default() {
            if self.states[twin] == State::Ready {
                self.line.enter(self.engine.plan().needs(twin).pool, twin);
            }
        }
        let stopped = matches!(done.ended, Err(Problem::Cancelled)) && !running.outdated;
        let running = match stopped {
            true => running,
            false => match self.outdated(index, running, &done.cost)? {
                Some(running) => running,
                None => return Ok(()),
            },
        };
        let ingested = match done.ended {
            Ok(ingested) => {
                let label = self.label(index);
                let scratch = self.scratch();
                scratch.give_back(running.scratch.clone());
                scratch.forget(&label, &running.key)?;
                ingested
            }
            Err(Problem::Cancelled) => {
                self.states[index] = State::Skipped;
                self.batch.action(self.row(index, &running, &done.cost, None, "cancelled", None));
                let label = self.label(index);
                (self.tell)(&Event::Finished { label, outcome: Outcome::Cancelled });
                return Ok(());
            }
            Err(Problem::Failed(failure)) => return self.action_failed(index, running, &done.cost, failure),
            Err(Problem::Undeclared(failure, lines)) => {
                let (label, place) = (self.label(index), self.engine.place(index));
                let help = format!(
                    "a program is given only what its target declares; add to `{label}` in {place}:\n{}",
                    lines.join("\n")
                );
                return self.action_failed(index, running, &done.cost, failure.help(help));
            }
            Err(Problem::InputGone(input)) => {
                // Its turn comes when the input has been made again.
                self.states[index] = State::Waiting;
                self.scratch().give_back(running.scratch.clone());
                drop(running);
                return self.make_again(index, input);
            }
        };
        let artifact = ingested.artifact;
        if let Some(failure) = self.is_not_as_claimed(index, &running.key, &artifact) {
            return self.action_failed(index, running, &done.cost, failure);
        }
        let label = self.label(index);
        let key_row = KeyRow {
            artifact,
            kind: self.engine.plan().kind(index).schema().name.to_owned(),
            label: label.to_string(),
            manifest: running.manifest.clone(),
            metrics: running.metrics.iter().map(|(name, _, value)| (name.clone(), *value)).collect(),
            size: ingested.tree.size(),
            wall_ms: done.cost.wall_ms,
            cpu_ms: done.cost.cpu_ms,
            peak_bytes: done.cost.peak_bytes,
            backend: running.backend.clone(),
        };
        let row = self.row(index, &running, &done.cost, Some(artifact), "built", None);
        let unchanged = self.judged[&index].before == Some(artifact);
        let state =
            TargetState { key: running.key, artifact, manifest: running.manifest, left_out: running.left_out.clone() };
        // A source that was left out is no answer for other projects or machines.
        let shared = running.left_out.is_none().then_some(key_row);
        if let Some(row) = &shared {
            self.send_to_remotes(index, running.key, row)?;
        }
        self.engine.know(index, running.key, artifact, running.left_out.is_some());
        self.batch.built(label.clone(), state, shared, &ingested.new_blobs, row, running.lock);
        self.artifacts[index] = Some(artifact);
        self.count(index, Tally::Built);
        self.states[index] = State::Known;
        self.bytes_missing.remove(&index);
        if self.chosen[index] && self.deliver(index, &artifact)?.is_none() {
            let failure = Failure::environment("the store lost bytes that were just written").help("check the disk");
            return self.failed(index, failure, None);
        }
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

    /// What was made is not what the lock says of its key: others who take the lock's word would have something else.
    pub(super) fn is_not_as_claimed(&self, index: Index, key: &Digest, artifact: &Digest) -> Option<Failure> {
        let claim = self.engine.claim(index, key).filter(|claim| claim.artifact != *artifact)?;
        let text = format!(
            "its artifact is {}, and {} says that this key is {}",
            artifact.short(),
            crate::lock::FILE,
            claim.artifact.short()
        );
        let help = "`effai build --check` names the first difference between two runs; fetch the other by `effai pull`, or \
                    write what is now by `effai build --lock`";
        Some(Failure::target(text).help(help))
    }

    /// An input's bytes are gone from the store: it runs again, and `waiting` after it.
    pub(super) fn make_again(&mut self, waiting: Index, input: Index) -> Result<(), Failure> {
        if self.states[input] == State::Known {
            self.uncount(input);
            self.run_again(input)?;
        }
        // What it stands on may not have been asked before: nothing stood in question then.
        self.judge(waiting)
    }

    pub(super) fn judge_dependents(&mut self, index: Index) -> Result<(), Failure> {
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

    /// An action ran and made nothing; its log and directory stay.
    pub(super) fn action_failed(
        &mut self,
        index: Index,
        running: Running,
        cost: &Cost,
        mut failure: Failure,
    ) -> Result<(), Failure> {
        let name = scratch::name(&self.label(index), &running.key);
        let store = self.engine.store.clone();
        let kept = self.scratch().keep(&running.scratch, &name, &store)?;
        // What it says of its files is where they are now.
        let (then, now) = (running.scratch.to_string_lossy(), kept.to_string_lossy());
        failure.message = failure.message.replace(&*then, &now);
        failure.help = failure.help.map(|help| help.replace(&*then, &now));
        let message = Some(failure.message.clone());
        self.batch.action(self.row(index, &running, cost, None, "failed", message));
        self.failed(index, failure, Some((running.log, kept)))
    }

    pub(super) fn failed(
        &mut self,
        index: Index,
        failure: Failure,
        kept: Option<(PathBuf, PathBuf)>,
    ) -> Result<(), Failure> {
        self.count(index, Tally::Failed);
        self.states[index] = State::Failed;
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

    pub(super) fn skip_the_rest(&mut self) {
        for at in 0..self.closure.len() {
            let index = self.closure[at];
            if !matches!(self.states[index], State::Waiting | State::Asked | State::Ready) {
                continue;
            }
            if self.options.only_brings && !self.cancel.is_asked() {
                let under = self.engine.plan().dependencies(index).find(|d| self.states[d.index] != State::Known);
                let because = under.map(|d| d.index);
                self.missing(index, because);
                continue;
            }
            self.states[index] = State::Skipped;
            self.summary.skipped += 1;
            let because = self.failed_under(index);
            let outcome = match because {
                Some(because) => Outcome::Skipped { because: self.label(because) },
                None if self.is_late(index) => self.late(index),
                None => continue,
            };
            let label = self.label(index);
            (self.tell)(&Event::Finished { label, outcome });
        }
    }

    /// Whether a target did not begin for the time, or stands on one that did not. To be asked in topological order.
    fn is_late(&mut self, index: Index) -> bool {
        let is_late =
            self.late.contains(&index) || self.engine.plan().dependencies(index).any(|d| self.late.contains(&d.index));
        is_late && { self.late.insert(index) | true }
    }

    fn late(&mut self, index: Index) -> Outcome {
        let until = self.options.until.as_ref().expect("only then is anything too late").text.clone();
        self.summary.late += 1;
        self.summary.until = Some(until.clone());
        Outcome::Late { until, last_ms: self.line.duration(index) }
    }

    /// The failed target that something was skipped for.
    fn failed_under(&self, index: Index) -> Option<Index> {
        let mut seen = BTreeSet::new();
        let mut queue = vec![index];
        while let Some(index) = queue.pop() {
            for other in self.engine.plan().dependencies(index).map(|d| d.index) {
                match self.states[other] {
                    State::Failed => return Some(other),
                    State::Known => {}
                    _ if seen.insert(other) => queue.push(other),
                    _ => {}
                }
            }
        }
        None
    }

    pub(super) fn row(
        &self,
        index: Index,
        running: &Running,
        cost: &Cost,
        artifact: Option<Digest>,
        outcome: &'static str,
        message: Option<String>,
    ) -> ActionRow {
        let plan = self.engine.plan();
        ActionRow {
            label: self.label(index),
            kind: plan.kind(index).schema().name.to_owned(),
            key: running.key,
            artifact,
            outcome,
            message,
            started_at: running.started_at.clone(),
            wall_ms: cost.wall_ms,
            cpu_ms: cost.cpu_ms,
            peak_bytes: cost.peak_bytes,
            threads: self.pools.threads(plan.needs(index).pool),
            backend: running.backend.clone(),
            sandbox: held_by(plan.kind(index), self.engine.is_sandboxed()),
            reasons: running.reasons.clone(),
            metrics: running.metrics.clone(),
            timing: Timing {
                build: self.id.expect("an action began"),
                pool: plan.needs(index).pool.name().into(),
                ready_us: self.ready_us.get(&index).copied().unwrap_or(running.start_us),
                start_us: running.start_us,
                end_us: self.now_us(),
                after: plan
                    .dependencies(index)
                    .filter(|d| self.ran.contains(&d.index))
                    .map(|d| plan.name(d.index).to_owned())
                    .collect(),
            },
        }
    }
}
