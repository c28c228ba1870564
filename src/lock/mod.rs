//! `effai.lock`: for each target the key and the artifact that a commit stands for.
//!
//! One line a target, sorted by label, so that git merges it line by line:
//!
//! ```text
//! # effai.lock 1: label, key, artifact, bytes, then metrics
//! models/digits 5f0c… 91ab… 30412 accuracy=0.9867
//! ```
//!
//! `KEY` and `ARTIFACT` are 64 hexadecimal digits. A metric's name has what would end a word as `%XX`. What was
//! measured on a machine says on which (`@machine=`), since that is a fact of its key. Between git's conflict marks a
//! label may stand more than once: then it is disputed, and whoever knows its key now can say which line holds.

pub mod history;
pub mod merge;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::util::fs;

/// Its name, in the project's root.
pub const FILE: &str = "effai.lock";

const HEADER: &str = "# effai.lock 1: label, key, artifact, bytes, then metrics";

/// Its first word but one; a later version has another.
const VERSION: &str = "1";

const MACHINE: &str = "@machine";

/// What a word cannot hold as it is.
const SPECIAL: &AsciiSet = &CONTROLS.add(b' ').add(b'=').add(b'%').add(b'@');

/// What a commit says of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its key.
    pub key: Digest,
    /// What that key stands for.
    pub artifact: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// Its main metrics: last values.
    pub metrics: BTreeMap<String, f64>,
    /// Of a measurement, the machine.
    pub machine: Option<String>,
}

/// All that a commit says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lock {
    /// By label.
    pub claims: BTreeMap<String, Claim>,
    /// Labels for which two sides of a merge say different things.
    pub disputed: BTreeMap<String, Vec<Claim>>,
}

/// A lock that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {why}", path.display())]
pub struct LockError {
    path: PathBuf,
    line: usize,
    why: String,
    help: &'static str,
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        Failure::user(error.to_string()).help(error.help)
    }
}

const ANEW: &str = "take the file as it was committed (`git checkout HEAD -- effai.lock`), or write it anew with \
                    `effai build --lock`";

impl Lock {
    /// The project's lock; none where no build was asked to write one.
    pub fn read(root: &Path) -> Result<Option<Self>, Failure> {
        let path = root.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        Ok(Some(Self::parse(&fs::read_text(&path)?, Path::new(FILE))?))
    }

    /// Reads a lock's text; `path` is for the error.
    pub fn parse(text: &str, path: &Path) -> Result<Self, LockError> {
        let mut all: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        let mut in_conflict = false;
        for (at, line) in text.lines().enumerate() {
            let bad = |why: String, help| LockError { path: path.to_owned(), line: at + 1, why, help };
            match line.split(' ').next().unwrap_or_default() {
                "" => continue,
                "#" => {
                    let version = line.strip_prefix("# effai.lock ").and_then(|rest| rest.split(':').next());
                    if let Some(other) = version.filter(|version| *version != VERSION) {
                        return Err(bad(format!("a lock of version {other}"), "a newer effai wrote it: install that"));
                    }
                    continue;
                }
                mark if ["<<<<<<<", "|||||||", "=======", ">>>>>>>"].contains(&mark) => {
                    in_conflict = mark != ">>>>>>>";
                    continue;
                }
                _ => {}
            }
            let (label, claim) = read_line(line).map_err(|why| bad(why, ANEW))?;
            let before = all.entry(label.clone()).or_default();
            if !before.is_empty() && !in_conflict {
                return Err(bad(format!("`{label}` stands here a second time"), ANEW));
            }
            if !before.contains(&claim) {
                before.push(claim);
            }
        }
        let mut lock = Self::default();
        for (label, mut claims) in all {
            match claims.len() {
                1 => drop(lock.claims.insert(label, claims.remove(0))),
                _ => drop(lock.disputed.insert(label, claims)),
            }
        }
        Ok(lock)
    }

    /// What is claimed of a label, by this key where two sides differ.
    pub fn claim(&self, label: &str, key: &Digest) -> Option<&Claim> {
        self.said(label).find(|claim| claim.key == *key)
    }

    /// Everything that is claimed of a label: one line, or those of both sides.
    pub fn said(&self, label: &str) -> impl Iterator<Item = &Claim> {
        self.claims.get(label).into_iter().chain(self.disputed.get(label).into_iter().flatten())
    }

    /// Its text; nothing in it is disputed any more.
    pub fn text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for (label, claim) in &self.claims {
            text.push_str(&write_line(label, claim));
            text.push('\n');
        }
        text
    }

    /// Writes it, where that changes the file. Says whether it did.
    pub fn write(&self, root: &Path) -> Result<bool, Failure> {
        let (path, text) = (root.join(FILE), self.text());
        if path.exists() && fs::read_text(&path)? == text {
            return Ok(false);
        }
        fs::write_atomic(&path, text.as_bytes())?;
        Ok(true)
    }
}

/// One line without its end.
pub(crate) fn write_line(label: &str, claim: &Claim) -> String {
    let mut line = format!("{label} {} {} {}", claim.key, claim.artifact, claim.size);
    let word = |text: &str| utf8_percent_encode(text, SPECIAL).to_string();
    for (name, value) in &claim.metrics {
        let _ = write!(line, " {}={value}", word(name));
    }
    if let Some(machine) = &claim.machine {
        let _ = write!(line, " {MACHINE}={}", word(machine));
    }
    line
}

/// What [`write_line`] wrote: the label, and what is said of it.
pub(crate) fn read_line(line: &str) -> Result<(String, Claim), String> {
    let mut words = line.split(' ');
    let mut next =
        |what: &str| words.next().filter(|word| !word.is_empty()).ok_or_else(|| format!("there is no {what}"));
    let label = next("label")?.to_owned();
    let digest = |what: &str, word: &str| word.parse::<Digest>().map_err(|e| format!("the {what} is {e}"));
    let key = digest("key", next("key")?)?;
    let artifact = digest("artifact", next("artifact")?)?;
    let size = next("size")?;
    let size = size.parse().map_err(|_| format!("the size is no number of bytes: `{size}`"))?;
    let (mut metrics, mut machine) = (BTreeMap::new(), None);
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(|| format!("`{word}` is no NAME=VALUE"))?;
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        if name == MACHINE {
            machine = Some(plain(value));
            continue;
        }
        let value = value.parse().map_err(|_| format!("`{word}`: the value is no number"))?;
        metrics.insert(plain(name), value);
    }
    Ok((label, Claim { key, artifact, size, metrics, machine }))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn claim(n: u8) -> Claim {
        Claim {
            key: Digest::from_bytes([n; 32]),
            artifact: Digest::from_bytes([n + 1; 32]),
            size: u64::from(n) * 1000,
            metrics: BTreeMap::new(),
            machine: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut lock = Lock::default();
        let metrics = [("recall@10".to_owned(), 0.1 + 0.2), ("tokens per second=%".to_owned(), -1e-9)];
        lock.claims.insert("models/b".into(), Claim { metrics: metrics.into(), ..claim(3) });
        lock.claims.insert("a:speed".into(), Claim { machine: Some("Apple M4, 10 cores".into()), ..claim(5) });
        let text = lock.text();
        assert_eq!(Lock::parse(&text, Path::new(FILE)).expect("read"), lock);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().nth(1).expect("sorted").starts_with("a:speed 0505"));
    }

    #[test]
    fn what_is_damaged_is_named_with_its_line() {
        let good = write_line("models/a", &claim(1));
        let check = |text: &str, said: &str| {
            let error = Lock::parse(text, Path::new(FILE)).expect_err(text);
            assert_eq!(error.to_string(), format!("effai.lock:{said}"));
        };
        check(&format!("{HEADER}\n{good}\n{good}\n"), "3: `models/a` stands here a second time");
        check(
            &good.replace("01 02", "01 x02"),
            &format!("1: the artifact is not a digest of 64 hexadecimal digits: `x{}`", "02".repeat(32)),
        );
        check("models/a", "1: there is no key");
        check(&format!("{good} accuracy"), "1: `accuracy` is no NAME=VALUE");
        check(&format!("{good} accuracy=high"), "1: `accuracy=high`: the value is no number");
        check("# effai.lock 2: label", "1: a lock of version 2");
    }

    #[test]
    fn both_sides_of_a_conflict_are_known_until_a_key_decides() {
        let (ours, theirs, other) = (claim(1), claim(3), claim(5));
        let text = format!(
            "{HEADER}\n<<<<<<< ours\n{}\n=======\n{}\n>>>>>>> theirs\n{}\n",
            write_line("models/a", &ours),
            write_line("models/a", &theirs),
            write_line("models/b", &other),
        );
        let lock = Lock::parse(&text, Path::new(FILE)).expect("read");
        assert_eq!(lock.claims.keys().collect::<Vec<_>>(), ["models/b"]);
        assert_eq!(lock.claim("models/a", &theirs.key), Some(&theirs));
        assert_eq!(lock.claim("models/a", &other.key), None);
    }
}
