//! What differs between two manifests, sorted by what a person looks for: files, targets, other facts.
//!
//! Thousands of files may have changed at once; they are one thing with a count and a few names.

use serde::Serialize;

use crate::fingerprint::{Digest, Fact, Reason};

/// Names of a group that are shown; a number tells the rest.
const NAMES_MAX: usize = 10;

/// Differences by sort.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Changes {
    /// Plain facts: fields of the declaration, versions, programs.
    pub facts: Vec<Reason>,
    /// Files of the project.
    pub files: Vec<FileChange>,
    /// Artifacts of other targets.
    pub targets: Vec<TargetChange>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileChange {
    /// From the project's root.
    pub path: String,
    /// What happened to it.
    pub how: FileHow,
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileHow {
    /// Other content.
    Changed,
    /// It was not there.
    Appeared,
    /// It is no longer there.
    Vanished,
}

/// One target that is stood on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TargetChange {
    /// The fact that holds its artifact.
    pub fact: String,
    /// Its label, where it is known.
    pub label: Option<String>,
    /// The artifact then; none if it was not stood on.
    pub was: Option<Digest>,
    /// The artifact now; none if it is no longer stood on.
    pub now: Option<Digest>,
    /// Why it gave another artifact, in words.
    pub because: Vec<String>,
}

impl Changes {
    /// Sorts reasons. Labels of targets, and why they changed, are the caller's to add.
    pub fn of(reasons: &[Reason]) -> Self {
        let mut changes = Self::default();
        for reason in reasons {
            let (name, was, now) = match reason {
                Reason::New { name, now } => (name, None, Some(now)),
                Reason::Changed { name, was, now } => (name, Some(was), Some(now)),
                Reason::Gone { name, was } => (name, Some(was), None),
                other => {
                    changes.facts.push(other.clone());
                    continue;
                }
            };
            let file = |fact: Option<&Fact>| match fact {
                Some(Fact::File(_)) => Some(true),
                Some(Fact::Missing) | None => Some(false),
                _ => None,
            };
            let artifact = |fact: Option<&Fact>| match fact {
                Some(Fact::Artifact(digest)) => Some(*digest),
                _ => None,
            };
            match (name.strip_prefix("file."), file(was), file(now)) {
                (Some(path), Some(was), Some(now)) => {
                    let how = match (was, now) {
                        (true, true) => FileHow::Changed,
                        (false, _) => FileHow::Appeared,
                        (true, false) => FileHow::Vanished,
                    };
                    changes.files.push(FileChange { path: path.to_owned(), how });
                }
                _ => match (artifact(was), artifact(now)) {
                    (None, None) => changes.facts.push(reason.clone()),
                    (was, now) => {
                        let because = Vec::new();
                        changes.targets.push(TargetChange { fact: name.clone(), label: None, was, now, because });
                    }
                },
            }
        }
        changes
    }

    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.files.is_empty() && self.targets.is_empty()
    }

    /// One line each; what a target changed for is indented under it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.targets.iter().flat_map(TargetChange::lines).collect();
        for (how, one, many) in [
            (FileHow::Changed, "changed", "files changed"),
            (FileHow::Appeared, "appeared", "files appeared"),
            (FileHow::Vanished, "vanished", "files vanished"),
        ] {
            let paths: Vec<&str> = self.files.iter().filter(|f| f.how == how).map(|f| f.path.as_str()).collect();
            match paths[..] {
                [] => {}
                [path] => lines.push(format!("{path} {one}")),
                _ => lines.push(format!("{} {many}: {}", paths.len(), some(&paths))),
            }
        }
        lines.extend(self.facts.iter().map(ToString::to_string));
        lines
    }
}

impl TargetChange {
    fn lines(&self) -> Vec<String> {
        let name = self.label.as_deref().unwrap_or("another target");
        let line = match (&self.was, &self.now) {
            (Some(was), Some(now)) => format!("{name} gave other bytes: artifact {} -> {}", was.short(), now.short()),
            (None, Some(now)) => format!("{name} is new under it ({}: artifact {})", self.fact, now.short()),
            (Some(was), None) => format!("{name} is no longer under it ({}: artifact {})", self.fact, was.short()),
            (None, None) => self.fact.clone(),
        };
        let because = self.because.iter().map(|reason| match reason.strip_prefix(' ') {
            // A reason of that reason: it names its own target.
            Some(_) => format!("  {reason}"),
            None => format!("  {name} ran because {reason}"),
        });
        std::iter::once(line).chain(because).collect()
    }
}

/// The first names, and how many more there are.
fn some(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMES_MAX)].join(", ");
    match names.len().saturating_sub(NAMES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Manifest;

    fn check(was: &[(&str, Fact)], now: &[(&str, Fact)], expected: &[&str]) {
        let manifest = |facts: &[(&str, Fact)]| {
            let mut manifest = Manifest::default();
            facts.iter().for_each(|(name, fact)| manifest.state(*name, fact.clone()));
            manifest
        };
        let changes = Changes::of(&manifest(now).reasons(&manifest(was)));
        assert_eq!(changes.lines(), expected);
        assert_eq!(changes.is_empty(), expected.is_empty());
    }

    fn file(text: &str) -> Fact {
        Fact::File(Digest::of(text.as_bytes()))
    }

    #[test]
    fn files_say_what_happened_to_them() {
        check(&[("file.a", file("1"))], &[("file.a", file("2"))], &["a changed"]);
        check(&[], &[("file.a", file("2"))], &["a appeared"]);
        check(&[("file.a", file("1"))], &[("file.a", Fact::Missing)], &["a vanished"]);
        check(&[("file.a", file("1"))], &[("file.a", file("1"))], &[]);
    }

    #[test]
    fn many_files_are_one_line() {
        let names: Vec<String> = (0..1204).map(|i| format!("file.d/{i:04}")).collect();
        let now: Vec<(&str, Fact)> = names.iter().map(|n| (n.as_str(), file("x"))).collect();
        let shown: Vec<String> = (0..10).map(|i| format!("d/{i:04}")).collect();
        check(&[], &now, &[&format!("1204 files appeared: {} and 1194 more", shown.join(", "))]);
    }

    #[test]
    fn targets_and_plain_facts() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        check(
            &[("lora.rank", Fact::Int(8)), ("lora.base", Fact::Artifact(a))],
            &[("lora.rank", Fact::Int(16)), ("lora.base", Fact::Artifact(b))],
            &[
                &format!("another target gave other bytes: artifact {} -> {}", a.short(), b.short()),
                "lora.rank: 8 -> 16",
            ],
        );
    }
}
