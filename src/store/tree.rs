//! An artifact: a sorted list of files, itself a blob.
//!
//! The written form is a text, one entry a line, sorted by path:
//!
//! ```text
//! effai tree 1
//! f DIGEST SIZE PATH      a file
//! x DIGEST SIZE PATH      a file with the executable bit
//! l TARGET-DIGEST SIZE PATH   a symbolic link; the blob is its target
//! ```
//!
//! A path is relative, its parts are joined by `/`, and bytes outside printable ASCII are `%XX`.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::fingerprint::Digest;
use crate::util::text::escape;

const HEAD: &str = "effai tree 1";

/// The files of one artifact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Vec<Entry>,
}

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative path.
    pub path: PathBuf,
    /// File, executable or link.
    pub form: Form,
    /// Digest of the content; of a link, of its target's text.
    pub digest: Digest,
    /// Size of that content in bytes.
    pub size: u64,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A file.
    File,
    /// A file with the executable bit.
    Executable,
    /// A symbolic link.
    Link,
}

impl Form {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Form::File => "a file",
            Form::Executable => "an executable file",
            Form::Link => "a link",
        }
    }
}

/// Bytes that are not a tree.
#[derive(Debug, thiserror::Error)]
#[error("not a tree: line {line}")]
pub struct BadTree {
    /// The first line that does not fit.
    pub line: usize,
}

impl Tree {
    /// A tree of these entries.
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
        Self { entries }
    }

    /// The entries, by path.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.entries.iter().map(|e| e.size).sum()
    }

    /// The written form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{HEAD}\n");
        for entry in &self.entries {
            let form = match entry.form {
                Form::File => 'f',
                Form::Executable => 'x',
                Form::Link => 'l',
            };
            text.push_str(&format!("{form} {} {} {}\n", entry.digest, entry.size, escape(&entry.path)));
        }
        text.into_bytes()
    }

    /// Reads the written form; refuses paths that would leave the artifact.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadTree> {
        let text = std::str::from_utf8(bytes).map_err(|_| BadTree { line: 1 })?;
        let mut lines = text.lines().enumerate();
        if lines.next().map(|(_, l)| l) != Some(HEAD) {
            return Err(BadTree { line: 1 });
        }
        let entries = lines.map(|(i, line)| entry(line).ok_or(BadTree { line: i + 1 })).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.splitn(4, ' ');
    let form = match words.next()? {
        "f" => Form::File,
        "x" => Form::Executable,
        "l" => Form::Link,
        _ => return None,
    };
    let digest = words.next()?.parse().ok()?;
    let size = words.next()?.parse().ok()?;
    let path = unescape(words.next()?)?;
    let inside = path.components().all(|c| matches!(c, Component::Normal(_))) && path.components().next().is_some();
    inside.then_some(Entry { path, form, digest, size })
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// The target of a link as bytes.
pub(super) fn link_bytes(target: &Path) -> &[u8] {
    target.as_os_str().as_bytes()
}

/// A link's target from bytes.
pub(super) fn link_target(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&[u8]]) -> Tree {
        let entry = |path: &&[u8]| Entry {
            path: PathBuf::from(OsStr::from_bytes(path)),
            form: Form::File,
            digest: Digest::of(path),
            size: 3,
        };
        Tree::new(paths.iter().map(entry).collect())
    }

    #[test]
    fn a_tree_survives_being_written() {
        let tree = tree(&[b"b", b"a dir/with space", b"not \xff utf-8", b"new\nline", b"100%"]);
        assert_eq!(Tree::from_bytes(&tree.to_bytes()).expect("reads"), tree);
    }

    #[test]
    fn a_tree_does_not_reach_outside() {
        for path in ["../x", "/etc/passwd", "a/../../x", ""] {
            let text = format!("{HEAD}\nf {} 1 {path}\n", Digest::of(b"x"));
            assert!(Tree::from_bytes(text.as_bytes()).is_err(), "{path}");
        }
    }
}
