//! The record of builds at commits: git notes under `refs/notes/effai`; and what was signed of them
//! (`refs/notes/effai-signed`).
//!
//! A commit's note is JSON lines, one build or one signed statement a line, so that notes of several people are merged by
//! joining their lines (git's `cat_sort_uniq`). A build that says what its commit's note says already adds nothing.

use std::collections::BTreeMap;
use std::path::Path;

use git2::{ErrorCode, Oid, Signature};
use serde::{Deserialize, Serialize};

use super::{Git, GitError, Version, tried};
use crate::action::program::Program;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::util::text::json_error;

/// Where they are.
pub const REFERENCE: &str = "refs/notes/effai";

/// Where signed statements are.
pub const SIGNED: &str = "refs/notes/effai-signed";

/// Another repository's are put beside ours, under this ending, before they are joined.
const FETCHED: &str = "-fetched";

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
    if at(git, &head.commit)?.iter().any(|other| note.says_what(other)) {
        return Ok(false);
    }
    append(git, &head.commit, REFERENCE, &serde_json::to_string(note).expect("a note is plain"))?;
    Ok(true)
}

/// Adds a signed statement, one line, to what the commit that is checked out has; says which that is.
pub fn add_signed(git: &Git, line: &str) -> Result<Version, Failure> {
    let none = || Failure::user("there is no commit yet at which a signature could be kept");
    let head = git.head()?.ok_or_else(|| none().help("commit first, or write it to a file: `-o FILE`"))?;
    append(git, &head.commit, SIGNED, line)?;
    Ok(head)
}

fn append(git: &Git, commit: &str, reference: &str, line: &str) -> Result<(), Failure> {
    let before = text(git, commit, reference)?.unwrap_or_default();
    let text = if before.is_empty() { format!("{line}\n") } else { format!("{}\n{line}\n", before.trim_end()) };
    let repository = &git.repository;
    // Who has no name yet can build all the same.
    let author = repository.signature().or_else(|_| Signature::now("effai", "effai@localhost"));
    let author = tried("sign a note", author)?;
    tried("write a note", repository.note(&author, &author, Some(reference), oid(commit)?, &text, true))?;
    Ok(())
}

/// The builds noted at a commit, in the note's order; lines of other versions are passed over, and one that is damaged is
/// refused.
pub fn at(git: &Git, commit: &str) -> Result<Vec<Note>, GitError> {
    let text = text(git, commit, REFERENCE)?.unwrap_or_default();
    let mut notes = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let damaged = |why: serde_json::Error| GitError::Note {
            place: place(REFERENCE, commit, at + 1),
            commit: commit.to_owned(),
            why: json_error(&why),
        };
        let version: Versioned = serde_json::from_str(line).map_err(damaged)?;
        if version.version == VERSION {
            notes.push(serde_json::from_str(line).map_err(damaged)?);
        }
    }
    Ok(notes)
}

/// A line of a note, of any version.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// A line of a note and where it stands, for people.
pub type Placed = (String, String);

/// Every line that was signed, at whichever commit, with where it stands.
pub fn signed(git: &Git) -> Result<Vec<Placed>, GitError> {
    let notes = match git.repository.notes(Some(SIGNED)) {
        Ok(notes) => notes,
        Err(e) if e.code() == ErrorCode::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(GitError::Library { what: "list notes".into(), source }),
    };
    let mut lines = Vec::new();
    for note in notes {
        let commit = tried("list notes", note)?.1.to_string();
        let text = text(git, &commit, SIGNED)?.unwrap_or_default();
        let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines.extend(numbered.map(|(at, line)| (place(SIGNED, &commit, at + 1), line.to_owned())));
    }
    Ok(lines)
}

fn place(reference: &str, commit: &str, line: usize) -> String {
    format!("{reference}, the note of commit {}, line {line}", &commit[..10.min(commit.len())])
}

/// The builds that a commit's artifacts may come from: noted at it, or, as what was committed after a build is, at its parents.
pub fn before(git: &Git, commit: &str) -> Result<Vec<Note>, GitError> {
    let mut all = at(git, commit)?;
    for parent in tried("read a commit", git.repository.find_commit(oid(commit)?))?.parent_ids() {
        all.extend(at(git, &parent.to_string())?);
    }
    Ok(all)
}

fn text(git: &Git, commit: &str, reference: &str) -> Result<Option<String>, GitError> {
    match git.repository.find_note(Some(reference), oid(commit)?) {
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
    let mut found = false;
    for reference in [REFERENCE, SIGNED] {
        if is_there(root, remote, reference) {
            found = true;
            join(root, remote, reference)?;
        }
    }
    if found {
        return Ok(());
    }
    // Why not: git says it, or there are none.
    run(root, &["fetch", "--quiet", remote, REFERENCE], "fetch notes")
}

fn is_there(root: &Path, remote: &str, reference: &str) -> bool {
    Program::new("git").args(["ls-remote", "--exit-code", remote, reference]).dir(root).ask().is_some()
}

fn join(root: &Path, remote: &str, reference: &str) -> Result<(), Failure> {
    let fetched = format!("{reference}{FETCHED}");
    run(root, &["fetch", "--quiet", remote, &format!("+{reference}:{fetched}")], "fetch notes")?;
    let ours = Git::of(root)?;
    if ours.repository.find_reference(reference).is_err() {
        return run(root, &["update-ref", reference, &fetched], "take over notes");
    }
    // Who has no name yet can join them all the same.
    let nobody = ["-c", "user.name=effai", "-c", "user.email=effai@localhost"];
    let name: &[&str] = if ours.repository.signature().is_ok() { &[] } else { &nobody };
    let join = ["notes", "--ref", reference, "merge", "--quiet", "--strategy", "cat_sort_uniq", &fetched];
    run(root, &[name, &join].concat(), "join notes")
}

/// Joins what the other repository has, and sends ours.
pub fn push(root: &Path, remote: &str) -> Result<(), Failure> {
    let ours = Git::of(root)?;
    let there = |reference: &&str| ours.repository.find_reference(reference).is_ok();
    let references: Vec<&str> = [REFERENCE, SIGNED].into_iter().filter(there).collect();
    if references.is_empty() {
        let none = Failure::user("no build was noted here yet");
        return Err(none.help("`effai build --lock` notes one at the commit that is checked out"));
    }
    for reference in &references {
        if is_there(root, remote, reference) {
            join(root, remote, reference)?;
        }
    }
    run(root, &[&["push", "--quiet", remote], references.as_slice()].concat(), "send notes")
}

fn run(root: &Path, args: &[&str], what: &str) -> Result<(), Failure> {
    let program = Program::new("git").args(args.iter().copied()).dir(root);
    let failed = |_, said: &str| {
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it does not say why").trim();
        Failure::environment(format!("git cannot {what}: {last}")).help("`git remote -v` says where they come from")
    };
    program.run_or(failed).map(drop)
}
