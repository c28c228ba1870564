//! The façade: open a project, judge its targets, build, explain.
//!
//! A verdict needs the artifacts of everything below a target, so targets are judged in topological order:
//! one whose dependencies are known has a manifest and a key; a known key has an artifact and nothing
//! runs. `Fresh` is never given on missing evidence.

mod deliver;
mod outside;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::event::Verdict;
use crate::failure::Failure;
use crate::fingerprint::{Digest, Manifest, Reason, facts};
use crate::plan::{Index, Label, Plan, Target, UnknownTarget};
use crate::recipe::load::{self, LoadError, Recipes};
use crate::recipe::mistake::Mistakes;
use crate::record::{Record, TargetState};
use crate::store::Store;
use crate::util::fs;
use crate::util::sqlite::DbError;

pub use deliver::Delivery;

/// A project, opened.
pub struct Engine {
    /// The directory of `effai.kdl`.
    pub root: PathBuf,
    /// What its recipes say.
    pub recipes: Recipes,
    /// The graph of its targets.
    pub plan: Plan,
    /// Where artifacts live.
    pub store: Store,
    /// What happened here before.
    pub record: Record,
    states: BTreeMap<Label, TargetState>,
    digests_read: BTreeMap<PathBuf, Digest>,
}

/// How to open a project.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The profile to lay over the recipes.
    pub profile: Option<String>,
}

/// A project that cannot be opened, or a question that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The recipes.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A word of the command line.
    #[error(transparent)]
    UnknownTarget(#[from] UnknownTarget),
    /// Anything that has a class already.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<Mistakes> for EngineError {
    fn from(mistakes: Mistakes) -> Self {
        EngineError::Load(mistakes.into())
    }
}

impl From<fs::FsError> for EngineError {
    fn from(error: fs::FsError) -> Self {
        EngineError::Failure(error.into())
    }
}

/// What is known of one target before it runs.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Fresh, cached, stale or waiting.
    pub verdict: Verdict,
    /// Its key, once its dependencies are known.
    pub key: Option<Digest>,
    /// Its facts, likewise.
    pub manifest: Option<Manifest>,
    /// Its artifact, if nothing has to run for it.
    pub artifact: Option<Digest>,
    /// Why it must run.
    pub reasons: Vec<Reason>,
}

impl Engine {
    /// Opens the project that `dir` lies in.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, EngineError> {
        let root = load::find_root(dir)?;
        let mut recipes = load::load(&root, options.profile.as_deref())?;
        let plan = Plan::new(std::mem::take(&mut recipes.decls), &recipes.sources)?;
        let ignore = root.join(".effai/.gitignore");
        if !ignore.exists() {
            fs::write_atomic(&ignore, b"*\n")?;
        }
        let store = Store::open(&cache_dir(&recipes, &root)?)?;
        let record = Record::open(&root.join(".effai/effai.db"))?;
        let states = record.targets()?;
        Ok(Self { root, recipes, plan, store, record, states, digests_read: BTreeMap::new() })
    }

    /// The target at a place of the plan.
    pub fn target(&self, index: Index) -> &Target {
        &self.plan.targets[index]
    }

    /// The label of a target.
    pub fn label(&self, index: Index) -> &Label {
        &self.plan.targets[index].decl.label
    }

    /// The last known state of a target.
    pub fn state(&self, label: &Label) -> Option<&TargetState> {
        self.states.get(label)
    }

    /// Judges one target whose dependencies all have artifacts.
    ///
    /// # Panics
    /// If one of them has none: the caller asks in topological order.
    pub fn judge(&mut self, index: Index, artifacts: &[Option<Digest>]) -> Result<Judged, Failure> {
        let artifact = |i: Index| artifacts[i].expect("dependencies are judged first");
        let mut outside = outside::Project { root: &self.root, record: &self.record, read: &mut self.digests_read };
        let target = &self.plan.targets[index];
        let manifest =
            facts::manifest(&self.plan, target, &artifact, &mut outside).map_err(|f| f.within(&target.decl.label))?;
        let key = manifest.key();
        let state = self.states.get(&target.decl.label);
        let known = match state {
            Some(state) if state.key == key => Some((Verdict::Fresh, state.artifact)),
            _ => self.store.index.artifact(&key)?.map(|artifact| (Verdict::Cached, artifact)),
        };
        Ok(match known {
            Some((verdict, artifact)) => {
                Judged { verdict, key: Some(key), manifest: Some(manifest), artifact: Some(artifact), reasons: vec![] }
            }
            None => {
                let reasons = match state {
                    Some(state) => manifest.reasons(&state.manifest),
                    None => vec![Reason::NeverBuilt],
                };
                Judged { verdict: Verdict::Stale, key: Some(key), manifest: Some(manifest), artifact: None, reasons }
            }
        })
    }

    /// Judges targets given in topological order; those on stale ones wait for them.
    pub fn judge_all(&mut self, closure: &[Index]) -> Result<BTreeMap<Index, Judged>, Failure> {
        let mut artifacts = vec![None; self.plan.targets.len()];
        let mut all = BTreeMap::new();
        for &index in closure {
            let first_unknown =
                self.target(index).dependencies.iter().map(|d| d.index).find(|i| artifacts[*i].is_none());
            let judged = match first_unknown {
                None => self.judge(index, &artifacts)?,
                Some(other) => {
                    let label = self.label(other).to_string();
                    let reasons = vec![Reason::Dependency { label }];
                    Judged { verdict: Verdict::Waits, key: None, manifest: None, artifact: None, reasons }
                }
            };
            artifacts[index] = judged.artifact;
            all.insert(index, judged);
        }
        Ok(all)
    }

    /// Remembers a target's new state, here and in the database.
    pub fn remember(&mut self, index: Index, state: TargetState) -> Result<(), Failure> {
        let label = self.label(index).clone();
        if self.states.get(&label) != Some(&state) {
            self.record.put_target(&label, &state)?;
            self.states.insert(label, state);
        }
        Ok(())
    }
}

/// Where the store is: the project's word, else the user's, else the usual place.
pub fn cache_dir(recipes: &Recipes, root: &Path) -> Result<PathBuf, Failure> {
    if let Some(dir) = &recipes.settings.cache_dir {
        return Ok(root.join(dir));
    }
    crate::env::cache_dir().ok_or_else(|| {
        Failure::environment("there is no place for the store: neither EFFAI_CACHE_DIR, XDG_CACHE_HOME nor HOME is set")
            .help("set EFFAI_CACHE_DIR, or write cache dir=\"...\" into effai.kdl")
    })
}
