//! Who made an artifact, of what and how, as others can verify it: [in-toto statements](https://in-toto.io/Statement/v1)
//! with [SLSA's provenance](https://slsa.dev/spec/v1.0/provenance), signed in DSSE envelopes; and models signed as the
//! OpenSSF's Model Signing has it ([`bundle`]).
//!
//! A statement says of one run: the artifact and each of its files, all facts of its key, what it stood on, the commit, what
//! computed it and when. The key follows from the facts, so a changed fact shows without any store.

pub mod bundle;
pub mod dsse;
pub mod keys;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::fingerprint::{Digest, Fact, Manifest};
use crate::store::{Form, Tree};
use crate::util::fs;
use crate::util::sha256::Sha256;
use crate::util::text::json_error;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// What the parameters of a statement mean; the address is of their description.
const BUILD_TYPE: &str = "https://github.com/effai/effai/blob/main/docs/provenance.md#build-type-v1";

/// Who is believed where one believes the signature: whoever has the key, on a machine of theirs.
const BUILDER: &str = "https://github.com/effai/effai/blob/main/docs/provenance.md#builder";

/// The digest of an artifact's list of files (`store/tree.rs`), by the name that statements give it.
const TREE: &str = "effaiTree";
const BLAKE3: &str = "blake3";
const SHA256: &str = "sha256";

/// Files that are named in a refusal.
const TOLD_MAX: usize = 5;

/// An in-toto statement about one artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    form: String,
    /// The artifact under its label, then its files under `LABEL/PATH`.
    subject: Vec<Resource>,
    predicate_type: String,
    predicate: Predicate,
}

/// Something with a digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    digest: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    build_definition: Definition,
    run_details: Details,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Definition {
    build_type: String,
    external_parameters: External,
    internal_parameters: Internal,
    resolved_dependencies: Vec<Resource>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct External {
    target: String,
    kind: String,
    facts: Manifest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Internal {
    key: Digest,
    backend: String,
    threads: usize,
    sandbox: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    builder: Builder,
    metadata: Metadata,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Builder {
    id: String,
    version: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    invocation_id: String,
    started_on: String,
    finished_on: String,
}

/// The run that a statement is about.
#[derive(Clone, Debug)]
pub struct Made<'a> {
    /// The target.
    pub label: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// What it made.
    pub artifact: Digest,
    /// Its facts, of which its key is made.
    pub facts: &'a Manifest,
    /// The label that each fact stands for which is an artifact.
    pub labels: &'a BTreeMap<String, String>,
    /// What computed it.
    pub backend: &'a str,
    /// Threads it was given.
    pub threads: usize,
    /// What held its program to what its target declares.
    pub sandbox: Option<&'a str>,
    /// The run's name in the project's record.
    pub invocation: String,
    /// When it began, RFC 3339 in UTC.
    pub started: &'a str,
    /// When it ended.
    pub finished: String,
    /// The commit it is of; none outside of git and before the first.
    pub commit: Option<Commit>,
}

/// The commit that facts are of.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its name.
    pub id: String,
    /// Where its repository comes from, without a user's name or password.
    pub origin: Option<String>,
    /// Files of the project that were not as it has them.
    pub changed: Vec<String>,
}

/// What a statement that was believed says, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Said {
    /// The target.
    pub label: String,
    /// Its key.
    pub key: Digest,
    /// What it made.
    pub artifact: Digest,
    /// effai's release.
    pub effai: String,
    /// The commit, where it is of one.
    pub commit: Option<String>,
    /// Files that were not as the commit has them.
    pub changed: Vec<String>,
    /// What computed it.
    pub backend: String,
    /// When the run ended.
    pub finished: String,
    /// Files of the artifact.
    pub files: usize,
}

impl Statement {
    /// States a run. The artifact's files lie in `dir`; they are read, so what is stated of them is so.
    pub fn of(made: &Made<'_>, dir: &Path) -> Result<Self, Failure> {
        let tree = Tree::of_dir(dir)?;
        let found = Digest::of(&tree.to_bytes());
        if found != made.artifact {
            let text = format!("what the store has of {} is not the artifact of its run", made.label);
            return Err(
                Failure::target(text).help("`effai cache verify` says which file; `--repair` has it made again")
            );
        }
        let mut subject = vec![Resource::named(made.label, [(TREE, made.artifact.to_string())])];
        for entry in tree.entries().iter().filter(|entry| entry.form != Form::Link) {
            let path = dir.join(&entry.path);
            let sha256 = fs::at("read", &path, Sha256::of_file(&path))?.to_string();
            let name = format!("{}/{}", made.label, entry.path.to_string_lossy());
            subject.push(Resource::named(&name, [(BLAKE3, entry.digest.to_string()), (SHA256, sha256)]));
        }
        let definition = Definition {
            build_type: BUILD_TYPE.into(),
            external_parameters: External {
                target: made.label.into(),
                kind: made.kind.into(),
                facts: made.facts.clone(),
            },
            internal_parameters: Internal {
                key: made.facts.key(),
                backend: made.backend.into(),
                threads: made.threads,
                sandbox: made.sandbox.map(str::to_owned),
            },
            resolved_dependencies: made.commit.iter().map(Commit::resource).chain(stood_on(made)).collect(),
        };
        let version = BTreeMap::from([("effai".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        let metadata = Metadata {
            invocation_id: made.invocation.clone(),
            started_on: made.started.into(),
            finished_on: made.finished.clone(),
        };
        let details = Details { builder: Builder { id: BUILDER.into(), version }, metadata };
        let predicate = Predicate { build_definition: definition, run_details: details };
        Ok(Self { form: STATEMENT.into(), subject, predicate_type: PREDICATE.into(), predicate })
    }

    /// Its bytes, as they are signed.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a statement is plain")
    }

    /// Reads what was signed; a statement that does not hold together is refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let statement: Self =
            serde_json::from_slice(bytes).map_err(|e| format!("it is no statement of effai's: {}", json_error(&e)))?;
        let definition = &statement.predicate.build_definition;
        for (is, must) in
            [(&statement.form, STATEMENT), (&statement.predicate_type, PREDICATE), (&definition.build_type, BUILD_TYPE)]
        {
            if is != must {
                return Err(format!("it says `{is}` where effai says `{must}`"));
            }
        }
        if statement.artifact().is_none() {
            return Err("its first subject is no artifact of effai's".into());
        }
        if definition.external_parameters.facts.key() != definition.internal_parameters.key {
            return Err("its key does not follow from its facts".into());
        }
        Ok(statement)
    }

    fn artifact(&self) -> Option<Digest> {
        self.subject.first()?.digest.get(TREE)?.parse().ok()
    }

    /// What it says.
    pub fn said(&self) -> Said {
        let definition = &self.predicate.build_definition;
        let git = definition.resolved_dependencies.iter().find(|on| on.digest.contains_key("gitCommit"));
        let changed = git.and_then(|git| git.annotations.get("changed")).cloned().unwrap_or_default();
        Said {
            label: definition.external_parameters.target.clone(),
            key: definition.internal_parameters.key,
            artifact: self.artifact().expect("one without is not read"),
            effai: self.predicate.run_details.builder.version.get("effai").cloned().unwrap_or_default(),
            commit: git.map(|git| git.digest["gitCommit"].clone()),
            changed: serde_json::from_value(changed).unwrap_or_default(),
            backend: definition.internal_parameters.backend.clone(),
            finished: self.predicate.run_details.metadata.finished_on.clone(),
            files: self.subject.len() - 1,
        }
    }

    /// Whether a directory holds the artifact, byte for byte: what differs, by name.
    pub fn holds_of(&self, dir: &Path) -> Result<Vec<String>, Failure> {
        let tree = Tree::of_dir(dir)?;
        if Some(Digest::of(&tree.to_bytes())) == self.artifact() {
            return Ok(Vec::new());
        }
        let label = &self.predicate.build_definition.external_parameters.target;
        let prefix = format!("{label}/");
        let mut signed: BTreeMap<&str, Option<&String>> = BTreeMap::new();
        for file in &self.subject[1..] {
            let name = file.name.as_deref().unwrap_or_default();
            signed.insert(name.strip_prefix(&prefix).unwrap_or(name), file.digest.get(BLAKE3));
        }
        let mut wrong = Vec::new();
        for entry in tree.entries() {
            let name = entry.path.to_string_lossy();
            match signed.remove(name.as_ref()) {
                Some(Some(digest)) if *digest == entry.digest.to_string() => {}
                Some(_) => wrong.push(format!("{name}: its bytes are not those that were signed")),
                None if entry.form == Form::Link => {}
                None => wrong.push(format!("{name}: it was not signed")),
            }
        }
        wrong.extend(signed.keys().map(|name| format!("{name}: it is not there")));
        if wrong.is_empty() {
            // The list of files has these besides.
            wrong.push("a link or an executable bit is not as it was signed".into());
        }
        if wrong.len() > TOLD_MAX {
            let more = wrong.len() - TOLD_MAX;
            wrong.truncate(TOLD_MAX);
            wrong.push(format!("and {more} more"));
        }
        Ok(wrong)
    }
}

impl Resource {
    fn named<const N: usize>(name: &str, digests: [(&str, String); N]) -> Self {
        let digest = digests.into_iter().map(|(algorithm, value)| (algorithm.to_owned(), value)).collect();
        Self { name: Some(name.to_owned()), digest, ..Self::default() }
    }
}

impl Commit {
    fn resource(&self) -> Resource {
        let digest = BTreeMap::from([("gitCommit".to_owned(), self.id.clone())]);
        let changed = (!self.changed.is_empty()).then(|| ("changed".to_owned(), self.changed.clone().into()));
        Resource {
            name: Some("git".into()),
            uri: self.origin.as_ref().map(|origin| format!("git+{origin}")),
            digest,
            annotations: changed.into_iter().collect(),
        }
    }
}

/// The files and artifacts among a run's facts.
fn stood_on<'a>(made: &'a Made<'_>) -> impl Iterator<Item = Resource> + 'a {
    made.facts.facts().filter_map(|(name, fact)| match fact {
        Fact::File(digest) | Fact::Executable(digest) => {
            Some(Resource::named(name.strip_prefix("file.").unwrap_or(name), [(BLAKE3, digest.to_string())]))
        }
        Fact::Artifact(digest) => {
            let label = made.labels.get(name).map_or(name, String::as_str);
            Some(Resource::named(label, [(TREE, digest.to_string())]))
        }
        _ => None,
    })
}
