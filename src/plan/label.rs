//! A target's name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A path-shaped name, `models/clip-q4`; a part of a target is `models/clip:features`. Never a file path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Label(Arc<str>);

impl Label {
    /// A label from text that [`Label::complaint`] has nothing against.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Arc::from(text.as_ref()))
    }

    /// The label of a part of this target.
    #[must_use]
    pub fn part(&self, name: &str) -> Self {
        Self::new(format!("{self}:{name}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this names a part of another target.
    pub fn is_part(&self) -> bool {
        self.0.contains(':')
    }

    /// What is wrong with a text as a declared label, if anything.
    pub fn complaint(text: &str) -> Option<String> {
        if text.is_empty() {
            return Some("a label is not empty".into());
        }
        if let Some(c) = text.chars().find(|c| !(c.is_alphanumeric() || "/-_.+".contains(*c))) {
            return Some(format!("a label has letters, digits and / - _ . +, and no `{c}`"));
        }
        if text.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Some("each part of a label between slashes is a name".into());
        }
        None
    }
}

/// The two halves of `LABEL@REV`: a target as the lock of a git revision has it. No label has an `@`, and revisions may.
pub fn at_revision(text: &str) -> Option<(&str, &str)> {
    text.split_once('@')
}

/// Whether no recipe declares a target of this name: it is a part of another, or another as a revision has it.
pub fn is_implied(name: &str) -> bool {
    name.contains([':', '@'])
}

/// What is wrong with a text as the revision of a target, if anything. It names a directory below `out/`, and is never a
/// range of commits or a file of one.
pub fn complaint_of_revision(rev: &str) -> Option<String> {
    if rev.is_empty() {
        return Some("after @ comes a revision, such as HEAD~1 or a tag".into());
    }
    if let Some(c) = rev.chars().find(|c| c.is_whitespace() || c.is_control() || ":\\\"*?[".contains(*c)) {
        return Some(format!("a revision behind @ has no `{c}`"));
    }
    if rev.contains("..") || rev.split('/').any(|part| part.is_empty() || part == ".") {
        return Some("behind @ stands one revision, and no range or path".into());
    }
    None
}

/// The whole label of what a project's recipe calls `text`: one of its own, or with a slash before it one of the
/// outermost project. `base` is the project's directory below the outermost one.
pub fn resolve(base: &str, text: &str) -> String {
    match text.strip_prefix('/') {
        Some(whole) => whole.to_owned(),
        None if base.is_empty() => text.to_owned(),
        None => format!("{base}/{text}"),
    }
}

/// What a project's recipe calls a label: the other way of [`resolve`].
pub fn seen_from(base: &str, label: &str) -> String {
    if base.is_empty() {
        return label.to_owned();
    }
    match label.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')) {
        Some(own) => own.to_owned(),
        None => format!("/{label}"),
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}
