//! `LABEL@REV`: a target as the lock of a git revision has it.
//!
//! What the revision's lock says is a question of the plan like those about files, so a target that names another so is
//! judged again when its branch has moved, and only then. On the command line such a target is put behind the plan's own,
//! for as long as the engine lives.

use std::path::Path;

use super::{Engine, EngineError};
use crate::failure::Failure;
use crate::fingerprint::Manifest;
use crate::git::Git;
use crate::kind;
use crate::lock::{self, Claim, FILE, history};
use crate::plan::{Index, Label, UnknownTarget, at_revision, complaint_of_revision, resolve};
use crate::store::KeyRow;

/// What begins an answer that is a failure; no label does.
const FAILED: char = '!';

/// What the lock of a revision says of a target, as [`read`] reads it: the lock's line, or why there is none.
pub(super) fn ask(root: &Path, name: &str) -> String {
    match look(root, name) {
        Ok((label, claim)) => lock::write_line(label, &claim),
        Err(failure) => format!("{FAILED}{}\n{}", failure.message, failure.help.unwrap_or_default()),
    }
}

/// What [`ask`] said.
pub(super) fn read(answer: &str) -> Result<Claim, Failure> {
    match answer.strip_prefix(FAILED) {
        None => lock::read_line(answer).map(|(_, claim)| claim).map_err(Failure::environment),
        Some(failure) => {
            let (message, help) = failure.split_once('\n').unwrap_or((failure, ""));
            let failure = Failure::user(message);
            Err(if help.is_empty() { failure } else { failure.help(help) })
        }
    }
}

fn look<'a>(root: &Path, name: &'a str) -> Result<(&'a str, Claim), Failure> {
    let (label, rev) = at_revision(name).expect("only what has a revision is asked about");
    let lock = history::at(&Git::of(root)?, rev)?;
    if let Some(claim) = lock.claims.get(label) {
        return Ok((label, claim.clone()));
    }
    Err(if lock.disputed.contains_key(label) {
        Failure::user(format!("{FILE} of {rev} has both sides of a merge, of {label}"))
            .help("name a commit from before the merge, or from after it was settled")
    } else if lock.claims.is_empty() {
        Failure::user(format!("{rev} has no target in {FILE}"))
            .help("name a revision from after `effai build --lock` wrote it")
    } else {
        Failure::user(format!("{FILE} of {rev} has no line for {label}"))
            .help(format!("`effai log {label}` lists the commits that have one"))
    })
}

impl Engine {
    /// The targets that words of the command line name, as [`Engine::select`] has it, `LABEL@REV` among them.
    pub fn select_at(&mut self, words: &[String], excluded: &[String]) -> Result<Vec<Index>, EngineError> {
        for word in words.iter().chain(excluded) {
            self.add_at_revision(word)?;
        }
        self.select(words, excluded)
    }

    /// Puts what a word means behind the plan's targets, if it is `LABEL@REV` and not among them.
    fn add_at_revision(&mut self, word: &str) -> Result<(), EngineError> {
        let Some((label, rev)) = named(word) else { return Ok(()) };
        let wrong = Label::complaint(label.trim_start_matches('/')).or_else(|| complaint_of_revision(rev));
        if let Some(wrong) = wrong {
            let help = "LABEL@REV is one target as the effai.lock of a git revision has it";
            return Err(Failure::user(format!("`{word}`: {wrong}")).help(help).into());
        }
        let own = resolve(&self.base, label);
        // A label of the outermost project may be named whole from within another.
        let whole = if self.plan().find(&own).is_none() && self.plan().find(label).is_some() { label } else { &own };
        let name = format!("{whole}@{rev}");
        if self.plan().find(&name).is_none() {
            look(&self.root, &name)?;
            self.graph.plan.add_at_revision(&name);
            self.known.push(None);
            self.outputs.push(None);
            self.lies.push(false);
        }
        Ok(())
    }

    /// Whether a target is of this command alone: the recipes do not name it.
    pub fn is_passing(&self, index: Index) -> bool {
        index >= self.lasting
    }

    /// What the lock of its revision says of a target that was looked at, or why it says nothing; none of one that is not
    /// named so.
    pub fn at_revision(&self, index: Index) -> Option<Result<Claim, Failure>> {
        let plan = self.plan();
        plan.is_at_revision(index).then(|| read(self.sight.text_of(plan.reads(index)[0])))
    }

    /// What the lock of its revision names for a target.
    pub fn named_at_revision(&self, index: Index) -> Option<Claim> {
        self.at_revision(index)?.ok()
    }

    /// The key under which others have what a target is at its revision, and what there is to say of it.
    pub fn row_at_revision(&self, index: Index, claim: &Claim) -> Result<KeyRow, Failure> {
        let name = self.plan().name(index);
        let label = at_revision(name).map_or(name, |(label, _)| label);
        if let Some(row) = self.store.index.get(&claim.key)?.filter(|row| row.artifact == claim.artifact) {
            return Ok(KeyRow { label: label.to_owned(), ..row });
        }
        let kind = self.plan().find(label).map_or(kind::AT_REVISION, |index| self.plan().kind(index));
        Ok(KeyRow {
            artifact: claim.artifact,
            kind: kind.schema().name.to_owned(),
            label: label.to_owned(),
            manifest: Manifest::default(),
            metrics: claim.metrics.clone(),
            size: claim.size,
            wall_ms: 0,
            cpu_ms: 0,
            peak_bytes: 0,
            backend: "none".to_owned(),
        })
    }

    /// Why a target at a revision is not to be had, and what makes it.
    pub fn nowhere(&self, index: Index) -> Failure {
        let name = self.plan().name(index);
        let (label, rev) = at_revision(name).unwrap_or((name, ""));
        let what = self.named_at_revision(index).map_or_else(String::new, |claim| claim.artifact.short());
        Failure::target(format!("{FILE} of {rev} has {label} as {what}, and neither the store nor a remote has that"))
            .help(format!("`effai build {name}` makes it as {rev} has it"))
    }

    /// Says where the recipes name a target at a revision that is none.
    pub(super) fn with_place(&self, index: Index, mut failure: Failure) -> Failure {
        if self.plan().is_at_revision(index) && !self.is_passing(index) {
            failure.message = format!("{} (named in {})", failure.message, self.place(index));
        }
        failure
    }
}

/// The target and the revision that a word of the command line names.
fn named(word: &str) -> Option<(&str, &str)> {
    let word = word.strip_prefix("./").unwrap_or(word).trim_end_matches('/');
    at_revision(word).filter(|_| !word.starts_with("tag:") && !word.starts_with("out/"))
}

/// What is said of a word that means no target, where that is since it is one at a revision.
pub(super) fn refused(error: UnknownTarget) -> EngineError {
    if named(&error.found).is_none() {
        return error.into();
    }
    let word = &error.found;
    Failure::user(format!("`{word}` cannot be named here: this is done with targets as they are now"))
        .help(format!(
            "`effai build {word}` puts it into out/; explain, status, graph, log, blame, diff, push, pull, restore and \
             verify-provenance take LABEL@REV, too"
        ))
        .into()
}
