//! Files that change while a build goes on.
//!
//! Two things find out: whoever watches the files tells ([`Edits`]), and what an action read is looked at once more when
//! it ends. Either way the targets that read what was written to, and all that stand on them, are judged again; of the
//! running actions just those are stopped. A file that is touched under a running action counts as changed, whatever it
//! holds afterwards: nobody knows what the action read.

use std::collections::BTreeSet;

use super::{Build, Running, State};
use crate::action::Cost;
use crate::engine::Doubt;
use crate::event::{Event, Outcome};
use crate::failure::Failure;
use crate::plan::Index;

/// Edits that happen while a build goes on, for it to ask about now and then.
pub trait Edits {
    /// The questions whose files were written to since this was last asked.
    fn take(&mut self) -> Doubt;

    /// Whether files are being written right now: no action is begun before that is over.
    fn is_under_way(&self) -> bool;

    /// Whether the recipes changed, and so no action is begun any more.
    fn end_soon(&self) -> bool;

    /// How often an action may end that its files had changed under before it is taken to write to them itself.
    fn tries_max(&self) -> u32;
}

/// Nobody watches: files are looked at when an action ends, and not before.
pub struct Unwatched;

impl Edits for Unwatched {
    fn take(&mut self) -> Doubt {
        Doubt::Nothing
    }

    fn is_under_way(&self) -> bool {
        false
    }

    fn end_soon(&self) -> bool {
        false
    }

    fn tries_max(&self) -> u32 {
        3
    }
}

impl Build<'_> {
    /// Judges again what reads files that were edited since the build began.
    pub(super) fn follow_edits(&mut self) -> Result<(), Failure> {
        let questions: Vec<u32> = match self.edits.take() {
            Doubt::Nothing => return Ok(()),
            Doubt::Of(questions) => questions.into_iter().collect(),
            Doubt::Everything => self.closure.iter().flat_map(|i| self.engine.plan().reads(*i)).copied().collect(),
        };
        let found = self.engine.look_again(&questions)?;
        self.reopen(&found.stirred)
    }

    /// Files were written to while the build went on: what reads them, and all that stands on it, waits and is judged
    /// again; what runs of these is stopped, and waits when it has ended.
    fn reopen(&mut self, stirred: &[u32]) -> Result<(), Failure> {
        if stirred.is_empty() {
            return Ok(());
        }
        // What is judged again is held against the record.
        self.batch.flush(self.engine)?;
        let stirred: BTreeSet<u32> = stirred.iter().copied().collect();
        let mut affected = vec![false; self.states.len()];
        for &index in &self.closure {
            let plan = self.engine.plan();
            affected[index] = plan.reads(index).iter().any(|q| stirred.contains(q))
                || plan.dependencies(index).any(|d| affected[d.index]);
        }
        let mut open: BTreeSet<Index> = self.open.iter().copied().collect();
        for at in 0..self.closure.len() {
            let index = self.closure[at];
            if !affected[index] {
                continue;
            }
            open.insert(index);
            self.engine.reconsider(index);
            self.artifacts[index] = None;
            self.locked_out.remove(&index);
            if self.asked.remove(&index).is_some() {
                // What comes of that is of no account: it is asked for anew.
                self.asked_before.remove(&index);
            }
            match self.running.get_mut(&index) {
                Some(running) => {
                    running.outdated = true;
                    running.cancel.ask();
                }
                None => {
                    self.uncount(index);
                    self.states[index] = State::Waiting;
                }
            }
        }
        // A plan's order is topological.
        self.open = open.into_iter().collect();
        self.plan_ahead()?;
        for at in 0..self.open.len() {
            let index = self.open[at];
            if self.states[index] == State::Ready && !self.locked_out.contains_key(&index) {
                self.line.enter(self.engine.plan().needs(index).pool, index);
            }
        }
        self.judge_open()
    }

    /// Judges a target again whose files changed under its action; what that made is not kept. Gives the action back
    /// if nothing it reads was written to since it was judged.
    pub(super) fn outdated(&mut self, index: Index, running: Running, cost: &Cost) -> Result<Option<Running>, Failure> {
        let reads = self.engine.plan().reads(index).to_vec();
        let stirred = self.engine.look_again(&reads)?.stirred;
        if stirred.is_empty() && !running.outdated {
            return Ok(Some(running));
        }
        if !running.outdated {
            *self.tries.entry(index).or_default() += 1;
        }
        let file = stirred.first().map(|q| self.engine.plan().question(*q as usize).text().to_owned());
        let message = file.as_ref().map(|file| format!("{file} changed"));
        self.batch.action(self.row(index, &running, cost, None, "cancelled", message));
        // It may hold what the action made.
        self.scratch().shared().empty(&running.scratch)?;
        self.scratch().give_back(running.scratch.clone());
        drop(running);
        let label = self.label(index);
        (self.tell)(&Event::Finished { label, outcome: Outcome::Outdated { file } });
        self.states[index] = State::Waiting;
        self.artifacts[index] = None;
        self.reopen(&stirred)?;
        self.judge(index)?;
        Ok(None)
    }
}
