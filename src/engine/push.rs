//! Artifacts of targets, or of all keys of the store, to remotes.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc;

use super::Engine;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::plan::Index;
use crate::recipe::mistake::nearest;
use crate::recipe::remote::{Access, Remote};
use crate::remote::{Heard, LeftOut, Remotes, Sent, Wrong};
use crate::store::KeyRow;

/// What to send.
#[derive(Clone, Debug)]
pub enum What {
    /// The artifacts of these targets and of all they stand on.
    Targets(Vec<Index>),
    /// Those of every key of the store.
    All,
}

/// What is told while artifacts are sent.
#[derive(Debug)]
pub enum Pushing {
    /// A target has no artifact to send.
    Unbuilt {
        /// Its label.
        label: String,
        /// Why.
        why: &'static str,
    },
    /// How far it is with what it knows of.
    Progress {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// An artifact is on the remotes.
    Sent {
        /// The label its target had.
        label: String,
        /// Its key.
        key: Digest,
        /// The artifact.
        artifact: Digest,
        /// By remote, without those that were left out.
        sent: Vec<Sent>,
    },
    /// A remote is left out.
    LeftOut(LeftOut),
    /// A remote has something else than it should.
    Wrong(Wrong),
    /// The store lacks what it should have.
    Failed(Failure),
}

impl Engine {
    /// The remotes to use: all, or the one of this name; where `writes` is said, those that can be written to.
    pub fn remotes(&self, only: Option<&str>, writes: bool) -> Result<Vec<Remote>, Failure> {
        let all = &self.settings().remotes;
        if all.is_empty() {
            return Err(Failure::user("the project has no remotes").help(
                "write one into effai.kdl: remote \"team\" { url \"s3://bucket/effai\"; access \"read-write\"; }",
            ));
        }
        let Some(name) = only else {
            let of_use: Vec<_> = all.iter().filter(|r| !writes || r.access == Access::ReadWrite).cloned().collect();
            return match of_use.is_empty() {
                true => Err(Failure::user("no remote of the project can be written to")
                    .help("write access \"read-write\" into one of them in effai.kdl")),
                false => Ok(of_use),
            };
        };
        let Some(remote) = all.iter().find(|remote| remote.name == name) else {
            let help = match nearest(name, all.iter().map(|remote| remote.name.as_str())) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let names: Vec<&str> = all.iter().map(|remote| remote.name.as_str()).collect();
                    format!("remotes are: {}", names.join(", "))
                }
            };
            return Err(Failure::user(format!("there is no remote `{name}`")).help(help));
        };
        if writes && remote.access == Access::Read {
            return Err(Failure::user(format!("the remote `{name}` is only read from"))
                .help(format!("write access \"read-write\" into `{name}` in effai.kdl, if it may be written to")));
        }
        Ok(vec![remote.clone()])
    }

    /// Sends artifacts to remotes that can be written to; `again` also what is there. Tells of each, in the order in which
    /// they are done.
    pub fn push(
        &mut self,
        what: &What,
        remotes: &[Remote],
        again: bool,
        tell: &mut dyn FnMut(Pushing),
    ) -> Result<(), Failure> {
        let _hold = self.store.enter(&self.root)?;
        let rows = match what {
            What::All => self.all_rows()?,
            What::Targets(chosen) => self.rows_of(chosen, tell)?,
        };
        let total = rows.iter().map(|(_, row)| row.size).sum::<u64>() * remotes.len() as u64;
        let remotes = Remotes::new(remotes, &self.root, &self.store)?;
        let (sender, heard) = mpsc::channel();
        for (at, (key, row)) in rows.iter().enumerate() {
            let sender = sender.clone();
            remotes.send(*key, row.clone(), again, Arc::new(move |heard| drop(sender.send((at, heard)))));
        }
        // The last of them ends the channel.
        drop(sender);
        let mut done = vec![0; rows.len()];
        let mut all_done = 0;
        for (at, heard) in heard {
            match heard {
                Heard::Progress { done: now, .. } => {
                    all_done += now - now.min(done[at]);
                    done[at] = now.max(done[at]);
                    tell(Pushing::Progress { done: all_done, total });
                }
                Heard::LeftOut(out) => tell(Pushing::LeftOut(out)),
                Heard::Wrong(wrong) => tell(Pushing::Wrong(wrong)),
                Heard::Failed(failure) => tell(Pushing::Failed(failure)),
                Heard::Sent(sent) => {
                    let (key, row) = &rows[at];
                    tell(Pushing::Sent { label: row.label.clone(), key: *key, artifact: row.artifact, sent });
                }
                Heard::Begun { .. } | Heard::Fetched(_) => {}
            }
        }
        Ok(())
    }

    fn all_rows(&self) -> Result<Vec<(Digest, KeyRow)>, Failure> {
        let mut rows = Vec::new();
        for key in self.store.index.keys_with("")? {
            rows.extend(self.store.index.get(&key)?.map(|row| (key, row)));
        }
        Ok(rows)
    }

    /// The keys of targets and of what they stand on, each once; those without an artifact are told.
    fn rows_of(&mut self, chosen: &[Index], tell: &mut dyn FnMut(Pushing)) -> Result<Vec<(Digest, KeyRow)>, Failure> {
        let closure = self.plan().closure(chosen);
        let mut seen = HashSet::new();
        let mut rows = Vec::new();
        for (index, judged) in self.judge_all(&closure)? {
            let label = self.label(index).to_string();
            if let Some(claim) = self.named_at_revision(index) {
                if !self.store.blobs.has_all(&claim.artifact) {
                    tell(Pushing::Unbuilt { label, why: "the store does not have it" });
                } else if seen.insert(claim.key) {
                    rows.push((claim.key, self.row_at_revision(index, &claim)?));
                }
                continue;
            }
            let Some((key, artifact)) = judged.key.zip(judged.artifact) else {
                tell(Pushing::Unbuilt { label, why: "it is not built as it is declared now" });
                continue;
            };
            match self.store.index.get(&key)? {
                Some(row) if row.artifact == artifact => {
                    if seen.insert(key) {
                        rows.push((key, KeyRow { label, ..row }));
                    }
                }
                _ if self.left_out(index)?.is_some() => {
                    tell(Pushing::Unbuilt {
                        label,
                        why: "a source was left out of it: others must not take it for the whole",
                    });
                }
                _ => tell(Pushing::Unbuilt { label, why: "the store has lost it" }),
            }
        }
        Ok(rows)
    }
}
