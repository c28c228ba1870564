//! What can run begins: the next in line gets its key's lock, a directory and a thread.

use std::time::Instant;

use super::work::Work;
use super::{Build, LOOK_AGAIN, Message, Running, State, checkpoints};
use crate::action::Cancel;
use crate::event::{Event, Verdict};
use crate::failure::Failure;
use crate::plan::Index;
use crate::record::log_file;

impl Build<'_> {
    pub(super) fn start_what_can(&mut self) -> Result<(), Failure> {
        if self.has_stopped() {
            return Ok(());
        }
        let now = Instant::now();
        let again: Vec<Index> = self.locked_out.iter().filter(|(_, at)| **at <= now).map(|(i, _)| *i).collect();
        for index in again {
            self.line.enter(self.engine.plan().needs(index).pool, index);
        }
        while !self.has_stopped()
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

    /// Whether nothing new is begun, since something failed.
    pub(super) fn has_stopped(&self) -> bool {
        self.summary.failed > 0 && !self.options.keep_going
    }

    /// Whether a target's action may not begin any more; time only makes that truer.
    pub(super) fn is_too_late(&self, index: Index) -> bool {
        let until = self.options.until.as_ref();
        until.is_some_and(|until| !until.leaves(jiff::Timestamp::now(), self.line.duration(index)))
    }

    /// Whether somebody wants a target to run whatever its state.
    pub(super) fn is_forced(&self, index: Index) -> bool {
        let is_meant = self.options.force_all || (self.options.force && self.chosen[index]);
        is_meant && !self.engine.plan().is_at_revision(index)
    }

    /// Whether a target runs although some store may have its artifact.
    pub(super) fn must_run(&self, index: Index) -> bool {
        self.is_forced(index) || !self.policy.reads_local || self.bytes_missing.contains(&index)
    }

    pub(super) fn start(&mut self, index: Index) -> Result<(), Failure> {
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
            self.found(index, artifact, Verdict::Cached, None)?;
            return self.judge_dependents(index);
        }
        let lock = lock.expect("taken above");
        let last_bytes = self.engine.last_size(&label)?;
        if let Some(failure) = last_bytes.and_then(|bytes| self.space.shortage(bytes)) {
            return self.failed(index, failure, None);
        }
        if self.is_forced(index) {
            checkpoints::forget(&self.engine.root, [&key])?;
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
        let work = Work::new(self.engine, (index, &key), &self.artifacts, threads, shared, &scratch, &log)?;
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
            // Until it says what does.
            backend: "none".into(),
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
}
