//! The engine and `effai.lock`: what a commit claims, held against what is, and written.
//!
//! A build that is held to the lock takes its word: a key that the lock has stands for the lock's artifact, whatever else
//! was made of it here. What was measured on another machine is then what the lock says it is, and of no use to a build
//! that is not held to it.

use std::collections::BTreeMap;

use super::{Engine, Judged};
use crate::failure::Failure;
use crate::fingerprint::{Digest, Fact, Manifest};
use crate::git::Git;
use crate::git::notes::{Note, NotedTarget};
use crate::kind;
use crate::lock::{Claim, FILE, Lock};
use crate::plan::{Index, is_implied};

/// The fact that says on which machine something was measured.
const MACHINE: &str = "machine";

/// Departures that are told one by one.
const TOLD_MAX: usize = 12;

/// Facts of one of them that are told.
const FACTS_MAX: usize = 3;

/// How much a build is held to the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub enum Held {
    /// Not at all.
    #[default]
    No,
    /// No key may be another (`--locked`), and no artifact of a key.
    Locked,
    /// Neither may anything run (`--frozen`).
    Frozen,
}

/// A target that is not what the lock says.
#[derive(Clone, Debug, PartialEq)]
struct Departure {
    label: String,
    why: Vec<String>,
}

/// What writing the lock changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// Labels whose line is another now, or new.
    pub changed: Vec<String>,
    /// Labels that are no longer declared.
    pub dropped: Vec<String>,
    /// Labels that have no line, since an optional source is not in their artifact.
    pub left_out: Vec<String>,
}

impl Written {
    /// Whether the file is another than before.
    pub fn is_change(&self) -> bool {
        !self.changed.is_empty() || !self.dropped.is_empty()
    }
}

impl Engine {
    /// Reads the lock this engine is held to.
    pub(super) fn take_lock(&mut self) -> Result<(), Failure> {
        if self.options.held == Held::No {
            return Ok(());
        }
        let none = || {
            Failure::user(format!("there is no {FILE} to hold the build to"))
                .help("`effai build --lock` writes one; commit it")
        };
        self.lock = Some(Lock::read(&self.root)?.ok_or_else(none)?);
        Ok(())
    }

    /// How much this engine is held to the lock.
    pub fn held(&self) -> Held {
        self.options.held
    }

    /// What the lock that this engine is held to says of a target's key.
    pub fn claim(&self, index: Index, key: &Digest) -> Option<&Claim> {
        self.lock.as_ref()?.claim(self.plan().name(index), key)
    }

    /// Whether a key and artifact are what the lock says, if the engine is held to one.
    pub(super) fn is_as_claimed(&self, index: Index, key: &Digest, artifact: &Digest) -> bool {
        self.lock.is_none() || self.claim(index, key).is_some_and(|claim| claim.artifact == *artifact)
    }

    /// A target's facts as the lock means them: of what was measured, on that machine.
    pub(super) fn as_measured(&self, index: Index, manifest: Manifest) -> Manifest {
        let Some(lock) = self.lock.as_ref().filter(|_| self.plan().needs(index).measures) else { return manifest };
        for claim in lock.said(self.plan().name(index)) {
            let Some(machine) = &claim.machine else { continue };
            let there = manifest.with(MACHINE, Fact::Text(machine.clone()));
            if there.key() == claim.key {
                return there;
            }
        }
        manifest
    }

    /// Whether a target's facts hold for this machine, as they do unless they are the lock's word of another.
    pub fn is_of_here(&self, index: Index, manifest: &Manifest) -> bool {
        let Some(Fact::Text(machine)) = manifest.get(MACHINE).filter(|_| self.plan().needs(index).measures) else {
            return true;
        };
        self.lock.is_none() || *machine == crate::util::machine::identity()
    }

    /// Whether a target, or one under it, was measured: its key is another on another machine.
    pub fn stands_on_measured(&self, index: Index) -> bool {
        self.plan().closure(&[index]).iter().any(|under| self.plan().needs(*under).measures)
    }

    /// Finds out, before anything runs, whether all of these are what the lock says.
    pub fn hold_to_lock(&mut self, closure: &[Index]) -> Result<(), Failure> {
        let judged = self.judge_all(closure)?;
        let departures = self.departures(&judged)?;
        if departures.is_empty() {
            return Ok(());
        }
        let mut text = format!("{FILE} is not of these recipes and files:");
        for departure in departures.iter().take(TOLD_MAX) {
            text += &format!("\n  {}: {}", departure.label, departure.why.join("; "));
        }
        if departures.len() > TOLD_MAX {
            text += &format!("\n  and {} more", departures.len() - TOLD_MAX);
        }
        let help = "take back what changed, or bring it up to date: `effai build --lock`, and commit it";
        Err(Failure::target(text).help(help))
    }

    fn departures(&self, judged: &BTreeMap<Index, Judged>) -> Result<Vec<Departure>, Failure> {
        let lock = self.lock.as_ref().expect("only then is anything held to it");
        let mut all = Vec::new();
        for (index, judged) in judged {
            let label = self.plan().name(*index);
            // What stands on one that departs has no key yet: that one is told.
            let Some(key) = judged.key else { continue };
            if lock.claim(label, &key).is_some() {
                continue;
            }
            let why = match lock.said(label).next() {
                None => vec!["it has no line there".to_owned()],
                Some(claim) => self.why_another(*index, judged, claim)?,
            };
            all.push(Departure { label: label.to_owned(), why });
        }
        Ok(all)
    }

    /// Why a key is not the claimed one, where the facts of that are kept.
    fn why_another(&self, index: Index, judged: &Judged, claim: &Claim) -> Result<Vec<String>, Failure> {
        let now = match &judged.manifest {
            Some(manifest) => manifest.clone(),
            None => {
                let artifacts = self.known.iter().map(|known| known.map(|k| k.artifact)).collect::<Vec<_>>();
                self.manifest(index, &artifacts)?
            }
        };
        let Some(was) = self.store.index.get(&claim.key)? else {
            return Ok(vec![format!("its key is {}, not {}", now.key().short(), claim.key.short())]);
        };
        let mut reasons: Vec<String> = now.reasons(&was.manifest).iter().map(ToString::to_string).collect();
        if reasons.len() > FACTS_MAX {
            let more = reasons.len() - FACTS_MAX;
            reasons.truncate(FACTS_MAX);
            reasons.push(format!("{more} more"));
        }
        Ok(reasons)
    }

    /// Writes what is known of these targets, and of all they stand on, into the lock. Lines of other targets stay; those of
    /// labels that are no longer declared go.
    pub fn write_lock(&mut self, chosen: &[Index]) -> Result<Written, Failure> {
        let before = Lock::read(&self.root)?.unwrap_or_default();
        let mut written = Written::default();
        let mut lock = Lock::default();
        for (label, claim) in &before.claims {
            match self.plan().find(label) {
                Some(_) => drop(lock.claims.insert(label.clone(), claim.clone())),
                None => written.dropped.push(label.clone()),
            }
        }
        for index in self.plan().closure(chosen) {
            let label = self.plan().name(index).to_owned();
            let Some(known) = self.known[index] else { continue };
            if known.left_out {
                lock.claims.remove(&label);
                written.left_out.push(label);
                continue;
            }
            let same = before.claim(&label, &known.key).filter(|claim| claim.artifact == known.artifact);
            let claim = match same {
                Some(same) => same.clone(),
                None => self.new_claim(index, &known.key, known.artifact)?,
            };
            if before.claims.get(&label) != Some(&claim) {
                written.changed.push(label.clone());
            }
            lock.claims.insert(label, claim);
        }
        let open = before.disputed.keys().filter(|label| self.plan().find(label).is_some());
        let open: Vec<&str> = open.filter(|label| !lock.claims.contains_key(*label)).map(String::as_str).collect();
        if !open.is_empty() {
            let text = format!("both sides of a merge say something of {} in {FILE}", open.join(", "));
            return Err(Failure::user(text).help(format!("build them too: `effai build --lock {}`", open.join(" "))));
        }
        lock.write(&self.root)?;
        Ok(written)
    }

    /// What a note at a commit says of these targets: what is known of them now.
    pub fn note(&self, git: &Git, chosen: &[Index]) -> Result<Note, Failure> {
        let mut targets = Vec::new();
        for index in self.plan().closure(chosen) {
            let label = self.plan().name(index);
            let Some(known) = self.known[index].filter(|_| !is_implied(label)) else { continue };
            let Some(row) = self.store.index.get(&known.key)? else { continue };
            let claim = self.new_claim(index, &known.key, known.artifact)?;
            targets.push(NotedTarget {
                label: label.to_owned(),
                kind: row.kind,
                key: known.key,
                artifact: known.artifact,
                size: claim.size,
                backend: row.backend,
                wall_ms: row.wall_ms,
                peak_bytes: row.peak_bytes,
                metrics: claim.metrics,
            });
        }
        Ok(Note::new(git, FILE, targets)?)
    }

    fn new_claim(&self, index: Index, key: &Digest, artifact: Digest) -> Result<Claim, Failure> {
        let mut claim = Claim { key: *key, artifact, size: 0, metrics: BTreeMap::new(), machine: None };
        let Some(row) = self.store.index.get(key)? else {
            claim.size = self.store.blobs.tree(&artifact)?.size();
            return Ok(claim);
        };
        claim.size = row.size;
        let kind = kind::find(&row.kind);
        let is_implied = self.plan().is_implied(index);
        let is_main = |name: &String| !is_implied && kind.is_some_and(|kind| kind.is_main(name));
        claim.metrics = row.metrics.into_iter().filter(|(name, _)| is_main(name)).collect();
        if let Some(Fact::Text(machine)) = row.manifest.get(MACHINE).filter(|_| self.plan().needs(index).measures) {
            claim.machine = Some(machine.clone());
        }
        Ok(claim)
    }
}
