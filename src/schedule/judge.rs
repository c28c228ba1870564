//! What is known of a target before it runs: fresh, found in the store, to be run, or waiting for others.

use super::{Build, State, Tally};
use crate::engine::Delivery;
use crate::engine::claims::Held;
use crate::event::{ActionEvent, Event, Outcome, Verdict};
use crate::failure::{Class, Failure};
use crate::fingerprint::{Digest, Reason};
use crate::plan::Index;
use crate::record::TargetState;

impl Build<'_> {
    /// Whether a target is known without being judged: nothing it reads or stands on changed, nobody forces it, and
    /// what was asked for lies where it should.
    pub(super) fn keeps(&mut self, index: Index) -> Result<bool, Failure> {
        if self.is_forced(index) {
            return Ok(false);
        }
        let Some((_, artifact)) = self.engine.unchanged(index, &self.artifacts) else { return Ok(false) };
        if self.chosen[index] && !self.engine.lies_in_out(index, &artifact) {
            return Ok(false);
        }
        if self.options.only_brings && !self.engine.store.blobs.has_all(&artifact) {
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

    pub(super) fn judge_open(&mut self) -> Result<(), Failure> {
        (0..self.open.len()).try_for_each(|at| self.judge(self.open[at]))
    }

    /// Judges a waiting target if everything under it is known.
    pub(super) fn judge(&mut self, index: Index) -> Result<(), Failure> {
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
        // Nothing can be made for it once somebody else waits for it.
        let looks = self.options.only_brings || self.engine.plan().is_at_revision(index);
        if looks && judged.artifact.is_some_and(|a| !self.engine.store.blobs.has_all(&a)) {
            self.bytes_missing.insert(index);
        }
        if self.is_forced(index) {
            judged.reasons = vec![Reason::Forced];
        } else if self.bytes_missing.contains(&index) {
            judged.reasons = vec![Reason::BytesMissing];
        } else if !self.policy.reads_local
            && judged.verdict == Verdict::Cached
            && !self.engine.plan().is_at_revision(index)
        {
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
        self.judged.insert(index, judged);
        if artifact.is_none() && self.ask_remotes(index)? {
            // What the verdict is depends on the answer.
            return Ok(());
        }
        self.tell_verdict(index);
        match artifact {
            Some(artifact) => self.found(index, artifact, verdict, None),
            None => self.make_ready(index),
        }
    }

    pub(super) fn tell_verdict(&mut self, index: Index) {
        let judged = &self.judged[&index];
        let verdict = judged.verdict;
        if verdict != Verdict::Fresh || self.options.tell_fresh {
            let reasons = judged.reasons.iter().map(ToString::to_string).collect();
            let label = self.label(index);
            (self.tell)(&Event::Verdict { label, verdict, reasons });
        }
    }

    /// A target whose artifact is known without running: put where it was asked for, or left in the store. What came from
    /// elsewhere is told as `came`.
    pub(super) fn found(
        &mut self,
        index: Index,
        artifact: Digest,
        verdict: Verdict,
        came: Option<Outcome>,
    ) -> Result<(), Failure> {
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
            if self.engine.is_of_here(index, &manifest) {
                self.engine.know(index, key, artifact, false);
            }
            self.batch.restored(label, TargetState { key, artifact, manifest, left_out: None });
        } else {
            let left_out = self.engine.left_out(index)?.is_some();
            self.engine.know(index, key, artifact, left_out);
        }
        let outcome = if placed || verdict == Verdict::Cached {
            self.count(index, Tally::Restored);
            came.unwrap_or(Outcome::Restored { artifact })
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

    pub(super) fn make_ready(&mut self, index: Index) -> Result<(), Failure> {
        if self.options.only_brings {
            self.missing(index, None);
            return Ok(());
        }
        if self.engine.plan().is_at_revision(index) {
            return self.failed(index, self.engine.nowhere(index), None);
        }
        let tries_max = self.edits.tries_max();
        if self.tries.get(&index).is_some_and(|tries| *tries >= tries_max) {
            let text = format!("a file it reads changed each of the {tries_max} times it ran");
            let help = "an action must not write to the project's files; or wait until nothing else does";
            return self.failed(index, Failure::user(text).help(help), None);
        }
        let is_elsewhere = |manifest| !self.engine.is_of_here(index, manifest);
        if self.engine.held() == Held::Frozen || self.judged[&index].manifest.as_ref().is_some_and(is_elsewhere) {
            return self.failed(index, self.not_to_be_had(index), None);
        }
        self.states[index] = State::Ready;
        // Before the first is ready: what is set up then is no time that an action waits in line.
        let alive = self.scratch().alive().to_owned();
        self.options.runner.begin(&alive);
        self.ready_us.insert(index, self.now_us());
        self.line.enter(self.engine.plan().needs(index).pool, index);
        Ok(())
    }

    /// Nothing may run, and no store has what would be there.
    fn not_to_be_had(&self, index: Index) -> Failure {
        let claimed = self.judged[&index].key.and_then(|key| self.engine.claim(index, &key));
        let what = claimed.map_or_else(String::new, |claim| format!(" {}", claim.artifact.short()));
        let (why, next) = match self.engine.held() {
            Held::Frozen => ("--frozen runs nothing", "without --frozen it is made"),
            _ => ("it was measured on another machine", "without --locked it is measured on this one"),
        };
        Failure::environment(format!("the store does not have its artifact{what}, and {why}"))
            .help(format!("`effai pull` brings what a remote has; {next}"))
    }

    /// Puts an artifact into `out/`. Says whether anything was placed; none if the store lacks its bytes.
    pub(super) fn deliver(&mut self, index: Index, artifact: &Digest) -> Result<Option<bool>, Failure> {
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

    pub(super) fn warn(&mut self, index: Index, text: String, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        let label = self.label(index);
        (self.tell)(&Event::Said { label, what: ActionEvent::Warning { text, help } });
    }

    /// The bytes of a known artifact are gone: it must run, and what waits on it waits again.
    pub(super) fn run_again(&mut self, index: Index) -> Result<(), Failure> {
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
    pub(super) fn open_again(&mut self, index: Index) {
        let Err(at) = self.open.binary_search(&index) else { return };
        self.open.insert(at, index);
        for dependency in self.engine.plan().dependencies(index) {
            self.dependents.entry(dependency.index).or_default().push(index);
        }
    }
}
