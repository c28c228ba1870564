//! The record of builds at commits: git notes under `refs/notes/effai`.
//!
//! A commit's note is JSON lines, one build a line, so that notes of several people are merged by joining their lines (git's
//! `cat_sort_uniq`). A build that says what its commit's note says already adds nothing.

use std::collections::BTreeMap;
use std::path::Path;

use git2::{ErrorCode, Oid, Signature};
use serde::{Deserialize, Serialize};

use super::{Git, GitError, tried};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::fingerprint::Digest;

/// Where they are.
pub const REFERENCE: &str = "refs/notes/effai";

/// Where another repository's are put before they are joined with ours.
const FETCHED: &str = "refs/notes/effai-fetched";

/// The version of a line.
const VERSION: u32 = 1;

/// One build at a commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Note {
    /// Version of this schema.
    pub version: u32,
    /// When the build ended, RFC 3339 in UTC.
    pub at: String,
    /// effai's release.
    pub effai: String,
    /// The branch, unless HEAD was detached.
    pub branch: Option<String>,
    /// Files of the project that were not as the commit has them; but for the lock, which the build itself wrote.
    pub changed: Vec<String>,
    /// What was built or was there already, without parts.
    pub targets: Vec<NotedTarget>,
}

/// One target in a build's note.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct NotedTarget {
    /// Its label.
    pub label: String,
    /// Its kind.
    pub kind: String,
    /// Its key.
    pub key: Digest,
    /// Its artifact.
    pub artifact: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// What computed it.
    pub backend: String,
    /// Wall time of the run that made it.
    pub wall_ms: u64,
    /// Peak memory of that run.
    pub peak_bytes: u64,
    /// Its main metrics.
    pub metrics: BTreeMap<String, f64>,
}

impl Note {
    /// Of a build that ends now; `own` is the file that it wrote itself.
    pub fn new(git: &Git, own: &str, targets: Vec<NotedTarget>) -> Result<Self, GitError> {
        let changed = git.changed()?.into_iter().filter(|path| path != own).collect();
        Ok(Self {
            version: VERSION,
            at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            effai: env!("CARGO_PKG_VERSION").into(),
            branch: git.branch(),
            changed,
            targets,
        })
    }

    /// Whether another build says the same, at another time.
    fn says_what(&self, other: &Self) -> bool {
        Self { at: other.at.clone(), ..self.clone() } == *other
    }
}

/// Adds a build to the note of the commit that is checked out. Says whether it was added; before the first commit, and
/// where it is there already, it is not.
pub fn add(git: &Git, note: &Note) -> Result<bool, Failure> {
    let Some(head) = git.head()? else { return Ok(false) };
    let before = text(git, &head.commit)?.unwrap_or_default();
    if read(&before).iter().any(|other| note.says_what(other)) {
        return Ok(false);
    }
    let line = serde_json::to_string(note).expect("a note is plain");
    let text = if before.is_empty() { format!("{line}\n") } else { format!("{}\n{line}\n", before.trim_end()) };
    let repository = &git.repository;
    // Who has no name yet can build all the same.
    let author = repository.signature().or_else(|_| Signature::now("effai", "effai@localhost"));
    let author = tried("sign a note", author)?;
    let id = oid(&head.commit)?;
    tried("write a note", repository.note(&author, &author, Some(REFERENCE), id, &text, true))?;
    Ok(true)
}

/// The builds noted at a commit, in the note's order; lines of other versions are passed over.
pub fn at(git: &Git, commit: &str) -> Result<Vec<Note>, GitError> {
    Ok(read(&text(git, commit)?.unwrap_or_default()))
}

/// The builds that a commit's artifacts may come from: noted at it, or, as what was committed after a build is, at its parents.
pub fn before(git: &Git, commit: &str) -> Result<Vec<Note>, GitError> {
    let mut all = at(git, commit)?;
    for parent in tried("read a commit", git.repository.find_commit(oid(commit)?))?.parent_ids() {
        all.extend(at(git, &parent.to_string())?);
    }
    Ok(all)
}

fn read(text: &str) -> Vec<Note> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok());
    lines.filter(|note| note.version == VERSION).collect()
}

fn text(git: &Git, commit: &str) -> Result<Option<String>, GitError> {
    match git.repository.find_note(Some(REFERENCE), oid(commit)?) {
        Ok(note) => Ok(note.message().ok().map(str::to_owned)),
        Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
        Err(source) => Err(GitError::Library { what: "read a note".into(), source }),
    }
}

fn oid(commit: &str) -> Result<Oid, GitError> {
    tried("read a commit's name", Oid::from_str(commit))
}

/// Fetches another repository's notes and joins them with ours, line by line.
pub fn fetch(root: &Path, remote: &str) -> Result<(), Failure> {
    let from = format!("+{REFERENCE}:{FETCHED}");
    run(root, &["fetch", "--quiet", remote, &from], "fetch notes")?;
    let ours = Git::of(root)?;
    if ours.repository.find_reference(REFERENCE).is_err() {
        return run(root, &["update-ref", REFERENCE, FETCHED], "take over notes");
    }
    // Who has no name yet can join them all the same.
    let nobody = ["-c", "user.name=effai", "-c", "user.email=effai@localhost"];
    let name: &[&str] = if ours.repository.signature().is_ok() { &[] } else { &nobody };
    let join = ["notes", "--ref", REFERENCE, "merge", "--quiet", "--strategy", "cat_sort_uniq", FETCHED];
    run(root, &[name, &join].concat(), "join notes")
}

/// Joins what the other repository has, and sends ours.
pub fn push(root: &Path, remote: &str) -> Result<(), Failure> {
    let ours = Git::of(root)?;
    if ours.repository.find_reference(REFERENCE).is_err() {
        let none = Failure::user("no build was noted here yet");
        return Err(none.help("`effai build --lock` notes one at the commit that is checked out"));
    }
    let there = Program::new("git").args(["ls-remote", "--exit-code", remote, REFERENCE]).dir(root).ask();
    if there.is_some() {
        fetch(root, remote)?;
    }
    run(root, &["push", "--quiet", remote, REFERENCE], "send notes")
}

fn run(root: &Path, args: &[&str], what: &str) -> Result<(), Failure> {
    let program = Program::new("git").args(args.iter().copied()).dir(root);
    let failed = |_, said: &str| {
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why").trim();
        Failure::environment(format!("git cannot {what}: {last}")).help("`git remote -v` says where they come from")
    };
    program.run_or(failed).map(drop)
}
