//! The lock along git's history: which commit made a target what it is.

use std::path::Path;

use super::{Claim, FILE, Lock};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::git::{Git, Version};

/// The lock as a revision has it; empty where it has none.
pub fn at(git: &Git, word: &str) -> Result<Lock, Failure> {
    read(git.file_at(word, FILE)?, word)
}

fn read(bytes: Option<Vec<u8>>, word: &str) -> Result<Lock, Failure> {
    let Some(bytes) = bytes else { return Ok(Lock::default()) };
    let path = format!("{word}:{FILE}");
    Lock::parse(&String::from_utf8_lossy(&bytes), Path::new(&path)).map_err(Failure::from)
}

/// The artifacts that the locks of all branches and tags name, and the one in the working tree. A lock that cannot be read
/// names none.
pub fn artifacts(root: &Path) -> Vec<Digest> {
    let git = Git::of(root);
    let mut texts = git.and_then(|git| git.at_tips(FILE)).unwrap_or_default();
    texts.extend(crate::util::fs::read(&root.join(FILE)).ok());
    let locks = texts.iter().filter_map(|text| Lock::parse(&String::from_utf8_lossy(text), Path::new(FILE)).ok());
    let claims = locks.flat_map(|lock| lock.claims.into_values().chain(lock.disputed.into_values().flatten()));
    claims.map(|claim| claim.artifact).collect()
}

/// One version of a target: what a commit's lock first said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The commit.
    pub version: Version,
    /// What it says; none where its lock has no line for it any more.
    pub claim: Option<Claim>,
}

/// Every version of a target along the history of a revision, newest first.
pub fn of(git: &Git, from: &str, label: &str) -> Result<Vec<Step>, Failure> {
    let mut steps: Vec<Step> = Vec::new();
    for (version, bytes) in git.history(from, FILE)? {
        let claim = read(bytes, &version.commit)?.claims.remove(label);
        // Going back: the same claim as of the younger commit came from this one.
        match steps.last_mut() {
            Some(younger) if younger.claim == claim => younger.version = version,
            _ => steps.push(Step { version, claim }),
        }
    }
    // Before its first line there was nothing to tell of.
    if steps.last().is_some_and(|step| step.claim.is_none()) {
        steps.pop();
    }
    Ok(steps)
}
