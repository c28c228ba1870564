//! Every fact that may change a target's bytes, by name.
//!
//! One ordered map is hashed to make the key, stored with the record and compared to explain; so what
//! decides, what is remembered and what is said cannot disagree.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, Hasher};

/// Raised when the way facts are hashed changes; old keys then match nothing, which is safe.
const DOMAIN: &str = "effai 2026-11 manifest v1";

/// Invariant: equal manifests mean interchangeable outputs. So no time, no host path, no map order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    facts: BTreeMap<String, Fact>,
}

/// The value of one fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number, compared bit for bit.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// The artifact of another target.
    Artifact(Digest),
    /// A file's content.
    File(Digest),
    /// The content of a file with the executable bit.
    Executable(Digest),
    /// A symbolic link that does not lead to a file; its target, with bytes outside printable ASCII as `%XX`.
    Link(String),
    /// The value of an environment variable, which may be a secret.
    Variable(Digest),
    /// A file or a variable that is not there.
    Missing,
}

impl Manifest {
    /// States a fact.
    ///
    /// # Panics
    /// If a fact of that name was stated already: two facts would hide one another.
    pub fn state(&mut self, name: impl Into<String>, fact: Fact) {
        let name = name.into();
        let before = self.facts.insert(name.clone(), fact);
        assert!(before.is_none(), "the fact `{name}` is stated twice");
    }

    /// Whether a fact of that name is stated.
    pub fn has(&self, name: &str) -> bool {
        self.facts.contains_key(name)
    }

    /// The value of a fact.
    pub fn get(&self, name: &str) -> Option<&Fact> {
        self.facts.get(name)
    }

    /// The same facts, but for one of another value.
    #[must_use]
    pub fn with(&self, name: &str, fact: Fact) -> Self {
        let mut other = self.clone();
        other.facts.insert(name.to_owned(), fact);
        other
    }

    /// The facts, by name.
    pub fn facts(&self) -> impl Iterator<Item = (&str, &Fact)> {
        self.facts.iter().map(|(name, fact)| (name.as_str(), fact))
    }

    /// The key: a digest of all facts.
    pub fn key(&self) -> Digest {
        let mut hasher = Hasher::in_domain(DOMAIN);
        for (name, fact) in &self.facts {
            hasher.part(name.as_bytes());
            match fact {
                Fact::Text(text) => {
                    hasher.update(b"t");
                    hasher.part(text.as_bytes());
                }
                Fact::Int(n) => {
                    hasher.update(b"i");
                    hasher.update(&n.to_le_bytes());
                }
                Fact::Float(x) => {
                    hasher.update(b"f");
                    hasher.update(&x.to_bits().to_le_bytes());
                }
                Fact::Bool(b) => hasher.update(if *b { b"y" } else { b"n" }),
                Fact::Artifact(digest) => {
                    hasher.update(b"a");
                    hasher.update(digest.bytes());
                }
                Fact::File(digest) => {
                    hasher.update(b"c");
                    hasher.update(digest.bytes());
                }
                Fact::Executable(digest) => {
                    hasher.update(b"x");
                    hasher.update(digest.bytes());
                }
                Fact::Link(target) => {
                    hasher.update(b"l");
                    hasher.part(target.as_bytes());
                }
                Fact::Variable(digest) => {
                    hasher.update(b"v");
                    hasher.update(digest.bytes());
                }
                Fact::Missing => hasher.update(b"m"),
            }
        }
        hasher.finish()
    }

    /// What differs from an older manifest, by name.
    pub fn reasons(&self, old: &Manifest) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for (name, fact) in &self.facts {
            match old.facts.get(name) {
                None => reasons.push(Reason::New { name: name.clone(), now: fact.clone() }),
                Some(was) if was != fact => {
                    reasons.push(Reason::Changed { name: name.clone(), was: was.clone(), now: fact.clone() });
                }
                Some(_) => {}
            }
        }
        for (name, fact) in &old.facts {
            if !self.facts.contains_key(name) {
                reasons.push(Reason::Gone { name: name.clone(), was: fact.clone() });
            }
        }
        reasons
    }
}

/// Why a target must run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Reason {
    /// It never ran here and no store has its key.
    NeverBuilt,
    /// A fact that was not there.
    New {
        /// Its name.
        name: String,
        /// Its value.
        now: Fact,
    },
    /// A fact with another value.
    Changed {
        /// Its name.
        name: String,
        /// The value of the last run.
        was: Fact,
        /// The value now.
        now: Fact,
    },
    /// A fact that is no longer there.
    Gone {
        /// Its name.
        name: String,
        /// The value of the last run.
        was: Fact,
    },
    /// A dependency has to run first.
    Dependency {
        /// Its label.
        label: String,
    },
    /// The store no longer has all of its bytes.
    BytesMissing,
    /// Asked for by `--force`.
    Forced,
    /// Its last run left an optional source out and may be tried again.
    LeftOut,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NeverBuilt => f.write_str("never built"),
            Reason::New { name, now } => write!(f, "{name}: new, {now}"),
            Reason::Changed { name, was, now } => write!(f, "{name}: {was} -> {now}"),
            Reason::Gone { name, was } => write!(f, "{name}: gone, was {was}"),
            Reason::Dependency { label } => write!(f, "stands on {label}"),
            Reason::BytesMissing => f.write_str("its bytes are not in the store"),
            Reason::Forced => f.write_str("forced"),
            Reason::LeftOut => f.write_str("was left out before"),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Text(text) => write!(f, "\"{text}\""),
            Fact::Int(n) => write!(f, "{n}"),
            Fact::Float(x) => write!(f, "{x}"),
            Fact::Bool(b) => write!(f, "#{b}"),
            Fact::Artifact(digest) => write!(f, "artifact {}", digest.short()),
            Fact::File(digest) => write!(f, "content {}", digest.short()),
            Fact::Executable(digest) => write!(f, "executable, content {}", digest.short()),
            Fact::Link(target) => write!(f, "link to {target}"),
            Fact::Variable(digest) => write!(f, "value with digest {}", digest.short()),
            Fact::Missing => f.write_str("missing"),
        }
    }
}
