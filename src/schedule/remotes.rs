//! What remotes have of the keys that would run, and what of the artifacts that were made goes to them.
//!
//! A target whose key the store has not is [`State::Asked`] until all remotes have answered: all such targets at once, and
//! beside whatever runs. An answer is a message like those of actions. One that comes after its target was judged again
//! is of no account; nor is a key asked for twice.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Build, Message, State, Tally};
use crate::event::{ActionEvent, Event, Outcome, Verdict};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::plan::Index;
use crate::remote::{Fetched, Hear, Heard, Remotes, Wanted};
use crate::store::KeyRow;

/// How often it is told how far an artifact is.
const TOLD_EVERY: Duration = Duration::from_millis(100);

impl Build<'_> {
    /// Asks remotes for the artifact of a target that would run. Says whether an answer will come.
    pub(super) fn ask_remotes(&mut self, index: Index) -> Result<bool, Failure> {
        let key = self.judged[&index].key.expect("judged");
        let is_wanted = self.policy.reads_remote && !self.is_forced(index);
        if !is_wanted || self.asked_before.get(&index) == Some(&key) {
            return Ok(false);
        }
        let sender = self.sender.clone();
        let Some(remotes) = self.remotes()? else { return Ok(false) };
        let wanted = match self.engine.named_at_revision(index) {
            Some(claim) => Wanted::Artifact(Box::new(self.engine.row_at_revision(index, &claim)?)),
            None => Wanted::Key(key),
        };
        remotes.fetch(wanted, throttled(move |heard| drop(sender.send(Message::Remote(index, key, heard)))));
        self.asked_before.insert(index, key);
        self.asked.insert(index, key);
        self.states[index] = State::Asked;
        Ok(true)
    }

    /// A remote said something about a key that was asked for.
    pub(super) fn hear_remote(&mut self, index: Index, key: Digest, heard: Heard) -> Result<(), Failure> {
        let heard = match heard {
            Heard::LeftOut(out) => {
                (self.tell)(&Event::RemoteLeftOut { remote: out.remote, why: out.why });
                return Ok(());
            }
            _ if self.asked.get(&index) != Some(&key) => return Ok(()),
            heard => heard,
        };
        let label = self.label(index);
        match heard {
            Heard::Wrong(wrong) => {
                let help = "it counts as missing there; `effai push --again` from a machine that has it sends it anew";
                self.warn(index, wrong.to_string(), help);
            }
            Heard::Begun { remote } => (self.tell)(&Event::Fetching { label, remote }),
            Heard::Progress { done, total } => {
                let (what, total, unit) = ("fetch".into(), Some(total), "bytes".into());
                (self.tell)(&Event::Said { label, what: ActionEvent::Progress { what, done, total, unit } });
            }
            Heard::Fetched(found) => {
                self.asked.remove(&index);
                self.states[index] = State::Waiting;
                return self.answered(index, key, found);
            }
            Heard::Failed(failure) => {
                self.asked.remove(&index);
                return self.failed(index, failure, None);
            }
            Heard::LeftOut(_) | Heard::Sent(_) => {}
        }
        Ok(())
    }

    /// All remotes have answered.
    fn answered(&mut self, index: Index, key: Digest, found: Option<Box<Fetched>>) -> Result<(), Failure> {
        let judged = self.judged.get_mut(&index).expect("judged");
        let Some(fetched) = found else {
            self.tell_verdict(index);
            return self.make_ready(index);
        };
        (judged.verdict, judged.reasons) = (Verdict::Cached, Vec::new());
        let manifest = judged.manifest.clone().expect("what is stale was judged by its facts");
        let Fetched { remote, record, new_blobs, bytes } = *fetched;
        let artifact = record.artifact;
        if let Some(failure) = self.is_not_as_claimed(index, &key, &artifact) {
            return self.failed(index, failure.within(format!("the remote `{remote}`")), None);
        }
        self.batch.fetched(key, record.into_row(manifest), &new_blobs);
        self.bytes_missing.remove(&index);
        self.tell_verdict(index);
        self.found(index, artifact, Verdict::Cached, Some(Outcome::Fetched { artifact, remote, bytes }))?;
        self.judge_dependents(index)
    }

    /// Sends what was made to the remotes that can be written to, where that is asked for.
    pub(super) fn send_to_remotes(&mut self, index: Index, key: Digest, row: &KeyRow) -> Result<(), Failure> {
        if !self.policy.writes_remote {
            return Ok(());
        }
        let sender = self.sender.clone();
        let Some(remotes) = self.remotes()?.filter(|remotes| remotes.take_anything()) else { return Ok(()) };
        remotes.send(
            key,
            row.clone(),
            false,
            throttled(move |heard| drop(sender.send(Message::Sending(index, heard)))),
        );
        self.sending += 1;
        Ok(())
    }

    /// A remote said something about an artifact that is being sent.
    pub(super) fn hear_sending(&mut self, index: Index, heard: Heard) {
        match heard {
            Heard::LeftOut(out) => (self.tell)(&Event::RemoteLeftOut { remote: out.remote, why: out.why }),
            Heard::Wrong(wrong) => self.warn(index, wrong.to_string(), ""),
            Heard::Sent(_) => self.sending -= 1,
            Heard::Failed(failure) => {
                self.sending -= 1;
                self.warn(index, format!("it was not sent: {}", failure.message), "`effai push` sends it later");
            }
            Heard::Begun { .. } | Heard::Progress { .. } | Heard::Fetched(_) => {}
        }
    }

    /// Whether it waits for remotes: for answers while anything may still come of them, and for what is being sent.
    pub(super) fn waits_for_remotes(&mut self) -> bool {
        let awaits = !self.asked.is_empty() && !self.has_stopped();
        if !awaits && self.sending > 0 && self.running.is_empty() && !std::mem::replace(&mut self.said_sending, true) {
            (self.tell)(&Event::Sending { artifacts: self.sending });
        }
        awaits || self.sending > 0
    }

    /// Nothing is to run, and no remote has it.
    pub(super) fn missing(&mut self, index: Index, because: Option<Index>) {
        self.states[index] = State::Skipped;
        self.count(index, Tally::Missing);
        let because = because.map(|other| self.label(other));
        let label = self.label(index);
        (self.tell)(&Event::Finished { label, outcome: Outcome::Missing { because } });
    }

    /// The project's remotes, if it has any.
    fn remotes(&mut self) -> Result<Option<Arc<Remotes>>, Failure> {
        if self.remotes.is_none() {
            let is_meant = |name: &str| self.options.remote.as_ref().is_none_or(|only| only == name);
            let remotes = self.engine.settings().remotes.iter().filter(|remote| is_meant(&remote.name));
            self.remotes =
                self.options.remotes.these(remotes.cloned().collect(), &self.engine.root, &self.engine.store)?;
        }
        Ok(self.remotes.clone())
    }
}

/// Hears of progress now and then only; of all else at once.
fn throttled(hear: impl Fn(Heard) + Send + Sync + 'static) -> Hear {
    let last: Mutex<Option<Instant>> = Mutex::new(None);
    Arc::new(move |heard| {
        if matches!(heard, Heard::Progress { .. }) {
            let mut last = last.lock().expect("no panic holds this");
            if last.is_some_and(|last| last.elapsed() < TOLD_EVERY) {
                return;
            }
            *last = Some(Instant::now());
        }
        hear(heard);
    })
}
