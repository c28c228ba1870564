//! The façade: open a project, judge its targets, build, explain.
//!
//! A verdict needs the artifacts of everything below a target, so targets are judged in topological order:
//! one whose dependencies are known has a manifest and a key; a known key has an artifact and nothing
//! runs. `Fresh` is never given on missing evidence.
//!
//! Where nothing changed nothing is judged: a target keeps its key while the files it reads and the artifacts it
//! stands on are what they were (see `sight` and `kept`), so a build costs by what changed and not by what exists.

mod attest;
pub mod claims;
mod deliver;
mod fresh;
mod kept;
mod push;
mod revision;
mod sealed;
mod sight;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::backend::Backend;
use crate::event::Verdict;
use crate::failure::Failure;
use crate::fingerprint::evidence::{Place, Stat};
use crate::fingerprint::{Digest, Manifest, Reason, facts};
use crate::lock::Lock;
use crate::plan::{Index, Label, Plan, UnknownTarget, resolve};
use crate::recipe::decl::Decl;
use crate::recipe::load::{self, LoadError, Settings};
use crate::recipe::mistake::Mistakes;
use crate::recipe::roots::{self, Stand};
use crate::recipe::source::Sources;
use crate::record::{Record, TargetState};
use crate::store::Store;
use crate::util::fs;
use crate::util::sqlite::DbError;

use claims::Held;
use kept::{Kept, KeptPlan, KeptState, Known, Output};
use sight::{Sight, sift};

pub use deliver::{Delivered, Delivery};
pub use fresh::Surrounding;
pub use kept::program;
pub use push::{Pushing, What};
pub use sight::{Doubt, Found};

/// A project, opened.
pub struct Engine {
    /// The outermost project's directory.
    pub root: PathBuf,
    /// The directory below it of the project that was opened; empty for the outermost.
    pub base: String,
    /// Where artifacts live.
    pub store: Store,
    /// What happened here before.
    pub record: Record,
    kept: Kept,
    profile: Option<String>,
    graph: KeptPlan,
    graph_digest: Digest,
    /// So many targets are the recipes'; those behind them are of this command alone.
    lasting: usize,
    sight: Sight,
    /// As the last build left it: each agrees with the others and with what `sight` held then.
    known: Vec<Option<Known>>,
    /// What this build found out. Apart from `known`, so that nothing is compared with half of each.
    news: HashMap<Index, Known>,
    /// Artifacts this build could not use, of targets that run again.
    remade: HashMap<Index, Digest>,
    outputs: Vec<Option<Output>>,
    /// By target: whether what was known to lie in `out/` did so when it was last looked at.
    lies: Vec<bool>,
    /// The kept state does not say any more what is known.
    outdated: bool,
    /// The record is being changed.
    changing: bool,
    /// What is kept on disk is not what is known.
    unsaved: bool,
    /// How the kept state looked when this engine last wrote it or took it away.
    left: Option<Stat>,
    /// Questions that got another answer since this was last asked.
    stirring: BTreeSet<u32>,
    options: Options,
    /// What the commit says, where this engine is held to it.
    lock: Option<Lock>,
}

/// How to open a project.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The profile to lay over the recipes.
    pub profile: Option<String>,
    /// The engine stays for many builds: what is known is kept in memory, and written down by [`Engine::save`] alone.
    pub resident: bool,
    /// What computes, where a recipe does not say; the best there is, where nobody does.
    pub backend: Option<Backend>,
    /// Programs are held to nothing (`--sandbox off`).
    pub without_sandbox: bool,
    /// How much what is built is held to `effai.lock`.
    pub held: Held,
    /// Where artifacts live, whatever the project says: of one that is laid out beside another to build for it.
    pub cache: Option<PathBuf>,
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
    /// Its facts, likewise; none where nothing under it changed and nobody had to look.
    pub manifest: Option<Manifest>,
    /// Its artifact, if nothing has to run for it.
    pub artifact: Option<Digest>,
    /// Why it must run.
    pub reasons: Vec<Reason>,
    /// Its artifact when it was last built here.
    pub before: Option<Digest>,
}

impl Judged {
    fn waiting(reasons: Vec<Reason>) -> Self {
        Self { verdict: Verdict::Waits, key: None, manifest: None, artifact: None, reasons, before: None }
    }
}

impl Engine {
    /// Opens the project that `dir` lies in.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, EngineError> {
        let Stand { root, base } = roots::find(dir)?;
        let kept = Kept::new(&root, options.profile.as_deref());
        let (graph, graph_digest) = match kept.plan() {
            Some(graph) => graph,
            None => {
                let ignore = root.join(".effai/.gitignore");
                if !ignore.exists() {
                    fs::write_atomic(&ignore, b"*\n")?;
                }
                read_recipes(&root, &kept, options)?
            }
        };
        let cache = options.cache.clone().map_or_else(|| cache_dir(&graph.settings, &root), Ok)?;
        let store = Store::at(&cache);
        let record = Record::at(&root.join(".effai/effai.db"));
        let lasting = graph.plan.len();
        let mut engine = Self {
            root,
            base,
            store,
            record,
            kept,
            profile: options.profile.clone(),
            graph,
            graph_digest,
            lasting,
            sight: Sight::default(),
            known: Vec::new(),
            news: HashMap::new(),
            remade: HashMap::new(),
            outputs: Vec::new(),
            lies: Vec::new(),
            outdated: false,
            changing: false,
            unsaved: false,
            left: None,
            stirring: BTreeSet::new(),
            options: options.clone(),
            lock: None,
        };
        engine.take_lock()?;
        engine.known.resize(engine.graph.plan.len(), None);
        match engine.kept.state(&graph_digest) {
            Some(state) => engine.go_on_from(state),
            None => engine.recollect()?,
        }
        let count = engine.graph.plan.len();
        engine.known.resize(count, None);
        engine.outputs.resize(count, None);
        engine.lies.resize(count, false);
        engine.left = engine.kept.look_of_state();
        Ok(engine)
    }

    fn go_on_from(&mut self, state: KeptState) {
        self.sight = state.sight.computing_with(self.backend());
        self.known = state.known;
        self.outputs = state.outputs;
    }

    /// Takes up what the record holds, where no state was kept. No target is taken for known by this alone: its key
    /// is stated anew.
    fn recollect(&mut self) -> Result<(), DbError> {
        self.sight = Sight::new(&self.graph.plan, self.record.files()?).computing_with(self.backend());
        self.outdated = true;
        Ok(())
    }

    /// Whether programs are held to what their targets declare.
    pub fn is_sandboxed(&self) -> bool {
        !self.options.without_sandbox
    }

    /// What computes, where a recipe does not say.
    pub fn backend(&self) -> Backend {
        self.options.backend.unwrap_or_else(Backend::best)
    }

    /// The graph of its targets.
    pub fn plan(&self) -> &Plan {
        &self.graph.plan
    }

    /// What `effai.kdl` says besides targets.
    pub fn settings(&self) -> &Settings {
        &self.graph.settings
    }

    /// What the recipes were read from.
    pub fn read(&self) -> &load::Read {
        &self.graph.read
    }

    /// The recipes that were read, by their path from the root.
    pub fn recipes(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.graph.read.recipes()
    }

    /// The targets that words of the command line name, as [`Plan::select_from`] has it, without those that others
    /// exclude. Without words: all of the project that was opened.
    pub fn select(&self, words: &[String], excluded: &[String]) -> Result<Vec<Index>, EngineError> {
        let select = |words: &[String]| self.plan().select_from(&self.base, words).map_err(revision::refused);
        let mut chosen = select(words)?;
        if !excluded.is_empty() {
            let excluded = select(excluded)?;
            chosen.retain(|index| excluded.binary_search(index).is_err());
            if chosen.is_empty() {
                let failure = Failure::user("--exclude takes out everything that was named");
                return Err(failure.help("name more, or exclude less").into());
            }
        }
        Ok(chosen)
    }

    /// The target of this label, as the project that was opened calls it, or whole.
    pub fn find(&self, label: &str) -> Option<Index> {
        self.plan().find(&resolve(&self.base, label)).or_else(|| self.plan().find(label))
    }

    /// What the project that was opened makes by default.
    pub fn default_words(&self) -> &[String] {
        self.settings().default.get(&self.base).map_or(&[], Vec::as_slice)
    }

    /// The label of a target.
    pub fn label(&self, index: Index) -> Label {
        self.graph.plan.label(index)
    }

    /// A target's declaration.
    pub fn decl(&self, index: Index) -> Result<Decl, Failure> {
        self.graph.plan.decl(index, || {
            let anew = || {
                let all = self.decls_anew()?;
                let text = all[self.graph.plan.decl_range(index)].to_vec();
                self.graph.plan.set_decl_bytes(all);
                Some(text)
            };
            self.kept.decl(&self.graph, index).or_else(anew).ok_or_else(|| {
                self.kept.drop_plan();
                Failure::environment("the project's own files in .effai/plan were changed while they were read")
                    .help("run the command again: they are made anew from the recipes")
            })
        })
    }

    /// The declarations from the recipes, where the kept ones are damaged and the recipes still say the same.
    fn decls_anew(&self) -> Option<Vec<u8>> {
        self.kept.drop_plan();
        let recipes = load::load(&self.root, self.profile.as_deref()).ok()?;
        let plan = Plan::new(recipes.decls, &recipes.sources).ok()?;
        self.graph.has_decls(plan.decl_bytes()).then(|| plan.decl_bytes().to_vec())
    }

    /// Where a target is declared: `recipes/clip.kdl:12`.
    pub fn place(&self, index: Index) -> String {
        self.sources().place(self.graph.plan.place(index))
    }

    /// The texts of the recipes, as they are now.
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::default();
        for path in self.recipes() {
            sources.add(path.to_owned(), fs::read_text(&self.root.join(path)).unwrap_or_default());
        }
        sources
    }

    /// The last known state of a target.
    pub fn state(&self, label: &Label) -> Result<Option<TargetState>, DbError> {
        self.record.target(label)
    }

    /// Bytes of a target's last artifact, where the store remembers.
    pub fn last_size(&self, label: &Label) -> Result<Option<u64>, DbError> {
        match self.record.target(label)? {
            Some(state) => self.store.index.size(&state.key),
            None => Ok(None),
        }
    }

    /// Why an optional source is not in a target's artifact, as far as that is remembered.
    pub fn left_out(&self, index: Index) -> Result<Option<String>, DbError> {
        match self.news.get(&index).or(self.known[index].as_ref()) {
            Some(Known { left_out: false, .. }) => Ok(None),
            _ => Ok(self.record.target(&self.label(index))?.and_then(|s| s.left_out)),
        }
    }

    /// Looks at all that these targets read, once, on all threads. To be asked before they are judged.
    pub fn look(&mut self, closure: &[Index]) -> Result<(), Failure> {
        let plan = &self.graph.plan;
        let questions: Vec<u32> = closure.iter().flat_map(|i| plan.reads(*i)).copied().collect();
        let found = self.sight.look(&self.root, plan, &questions)?;
        self.stirring.extend(found.changed);
        Ok(())
    }

    /// Lets the next look ask these questions again: an engine that stays asks none twice by itself.
    pub fn doubt(&mut self, doubt: &Doubt) {
        self.sight.doubt(doubt);
    }

    /// Looks again at what these questions ask about.
    pub fn look_again(&mut self, questions: &[u32]) -> Result<Found, Failure> {
        self.sight.doubt(&Doubt::Of(questions.iter().copied().collect()));
        let found = self.sight.look(&self.root, &self.graph.plan, questions)?;
        self.stirring.extend(&found.changed);
        Ok(found)
    }

    /// The questions that got another answer since this was last called.
    pub fn take_changed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.stirring)
    }

    /// The files a question stands for, and the directories that were walked to find them, from the root.
    pub fn stands_for(&self, question: u32) -> (impl Iterator<Item = &Path>, impl Iterator<Item = &Path>) {
        self.sight.stands_for(question)
    }

    /// A target's artifact, as far as it is known.
    pub fn artifact(&self, index: Index) -> Option<Digest> {
        self.known[index].map(|known| known.artifact)
    }

    /// Looks at what should lie in `out/` for these targets, on all threads. To be asked before [`Engine::lies_in_out`].
    ///
    /// An engine that stays looks once: what is edited or deleted there later is no build's business until another
    /// process builds, or a target has a new artifact.
    pub fn look_at_outputs(&mut self, chosen: &[Index]) {
        let is_seen = |i: &Index| self.options.resident && self.lies[*i];
        let chosen: Vec<Index> = chosen.iter().copied().filter(|i| !is_seen(i)).collect();
        let root = Place::open(&self.root);
        let (plan, outputs) = (&self.graph.plan, &self.outputs);
        let lies = |i: Index| deliver::lies_as_placed(&root, plan.name(i), outputs[i].as_ref());
        let lying = sift(&chosen, lies);
        chosen.iter().for_each(|index| self.lies[*index] = false);
        lying.into_iter().for_each(|index| self.lies[index] = true);
    }

    /// The key and artifact of a target of which nothing changed: neither what it reads nor what it stands on.
    pub fn unchanged(&self, index: Index, artifacts: &[Option<Digest>]) -> Option<(Digest, Digest)> {
        let known = self.known[index].as_ref()?;
        let plan = &self.graph.plan;
        let same = |i: Index| self.known[i].as_ref().is_some_and(|k| artifacts[i] == Some(k.artifact));
        let holds = self.sight.unchanged(plan.reads(index)) && plan.dependencies(index).all(|d| same(d.index));
        (holds && self.is_as_claimed(index, &known.key, &known.artifact)).then_some((known.key, known.artifact))
    }

    /// A target's facts, once everything under it has an artifact and was looked at.
    ///
    /// # Panics
    /// If one of them has none: the caller asks in topological order.
    pub fn manifest(&self, index: Index, artifacts: &[Option<Digest>]) -> Result<Manifest, Failure> {
        let plan = &self.graph.plan;
        let artifact = |i: Index| artifacts[i].expect("dependencies are judged first");
        let mut outside = self.sight.outside(plan, index);
        facts::manifest(plan, index, &self.decl(index)?, &artifact, &mut outside)
            .map_err(|f| self.with_place(index, f).within(plan.name(index)))
    }

    /// A target's facts where it was judged without a look at them.
    pub fn facts(&self, index: Index, judged: &BTreeMap<Index, Judged>) -> Result<Option<Manifest>, Failure> {
        match &judged[&index] {
            Judged { manifest: Some(manifest), .. } => Ok(Some(manifest.clone())),
            Judged { key: None, .. } => Ok(None),
            _ => {
                let mut artifacts = vec![None; self.plan().len()];
                self.plan().dependencies(index).for_each(|d| artifacts[d.index] = judged[&d.index].artifact);
                self.manifest(index, &artifacts).map(Some)
            }
        }
    }

    /// Judges one target whose dependencies all have artifacts and whose files were looked at.
    ///
    /// # Panics
    /// If one of them has none: the caller asks in topological order.
    pub fn judge(&self, index: Index, artifacts: &[Option<Digest>]) -> Result<Judged, Failure> {
        if let Some((key, artifact)) = self.unchanged(index, artifacts) {
            let (key, artifact) = (Some(key), Some(artifact));
            let before = artifact;
            return Ok(Judged { verdict: Verdict::Fresh, key, manifest: None, artifact, reasons: vec![], before });
        }
        let manifest = self.as_measured(index, self.manifest(index, artifacts)?);
        let key = manifest.key();
        let claimed =
            self.claim(index, &key).cloned().or_else(|| self.named_at_revision(index)).map(|claim| claim.artifact);
        let state = self.record.target(&self.label(index))?;
        let known = match &state {
            Some(state) if state.key == key && claimed.is_none_or(|artifact| artifact == state.artifact) => {
                Some((Verdict::Fresh, state.artifact))
            }
            _ if claimed.is_some() => claimed.map(|artifact| (Verdict::Cached, artifact)),
            _ => self.store.index.artifact(&key)?.map(|artifact| (Verdict::Cached, artifact)),
        };
        let before = state.as_ref().map(|s| s.artifact);
        let (verdict, artifact, reasons) = match (known, state) {
            (Some((verdict, artifact)), _) => (verdict, Some(artifact), vec![]),
            (None, Some(state)) => (Verdict::Stale, None, manifest.reasons(&state.manifest)),
            (None, None) => (Verdict::Stale, None, vec![Reason::NeverBuilt]),
        };
        Ok(Judged { verdict, key: Some(key), manifest: Some(manifest), artifact, reasons, before })
    }

    /// Judges targets given in topological order; those on stale ones wait for them.
    pub fn judge_all(&mut self, closure: &[Index]) -> Result<BTreeMap<Index, Judged>, Failure> {
        self.look(closure)?;
        let mut artifacts = vec![None; self.plan().len()];
        let mut all = BTreeMap::new();
        for &index in closure {
            let first_unknown = self.plan().dependencies(index).map(|d| d.index).find(|i| artifacts[*i].is_none());
            let judged = match first_unknown {
                None => self.judge(index, &artifacts)?,
                Some(other) => {
                    let label = self.label(other).to_string();
                    let reasons = vec![Reason::Dependency { label }];
                    Judged::waiting(reasons)
                }
            };
            artifacts[index] = judged.artifact;
            all.insert(index, judged);
        }
        Ok(all)
    }

    /// Holds a target's key and artifact for known from here on; the caller writes the record.
    pub fn know(&mut self, index: Index, key: Digest, artifact: Digest, left_out: bool) {
        let known = Known { key, artifact, left_out };
        if self.known[index] != Some(known) {
            self.outdated = true;
        }
        self.news.insert(index, known);
    }

    /// A target's artifact is not to be had: it runs again, perhaps to other bytes.
    pub fn forget(&mut self, index: Index) {
        self.outdated = true;
        let known = self.known[index].take();
        if let Some(known) = self.news.remove(&index).or(known) {
            self.remade.insert(index, known.artifact);
        }
    }

    /// What a target reads or stands on changed while this build went on: what was found out about it does not count.
    pub fn reconsider(&mut self, index: Index) {
        if self.news.remove(&index).is_some() {
            self.outdated = true;
        }
    }

    /// Takes what this build found out into what is known, and drops what no longer agrees with it: targets that were
    /// not asked for, but read or stand on something that changed.
    fn settle_known(&mut self) {
        let plan = &self.graph.plan;
        let mut moved = vec![false; plan.len()];
        for index in 0..plan.len() {
            let under = |moved: &[bool]| plan.dependencies(index).any(|d| moved[d.index]);
            let before = self.known[index].map(|k| k.artifact);
            match self.news.remove(&index) {
                Some(new) => {
                    moved[index] = before.is_some_and(|b| b != new.artifact);
                    self.known[index] = Some(new);
                }
                None if before.is_some() && (under(&moved) || self.sight.has_changed(plan.reads(index))) => {
                    self.known[index] = None;
                    moved[index] = true;
                }
                None => {}
            }
        }
        for (remade, old) in std::mem::take(&mut self.remade) {
            if self.known[remade].is_none_or(|k| k.artifact != old) {
                // Some may have been judged before it was made again: all are, next time.
                for (index, known) in self.known.iter_mut().enumerate() {
                    known.take_if(|_| plan.dependencies(index).any(|d| d.index == remade));
                }
            }
        }
    }

    /// To be called before the record changes: a build that is killed from here on leaves no state, not an old one.
    pub fn begin_changes(&mut self) {
        if !std::mem::replace(&mut self.changing, true) {
            self.kept.drop_state();
            self.left = None;
            // A store that cannot be marked says so when it is written to.
            let _ = self.store.mark();
        }
        self.outdated = true;
    }

    /// Keeps what is known for the next build. A disk that cannot take it costs that build time, and nothing else.
    pub fn keep(&mut self) -> Result<(), DbError> {
        if !self.outdated && !self.sight.is_changed() && !self.sight.is_worth_keeping() {
            self.news.clear();
            return Ok(());
        }
        self.kept.drop_state();
        self.left = None;
        self.unsaved = true;
        self.settle_known();
        let renewed = self.sight.renewed();
        // Files that were only touched are in the kept state; without that they are read once more.
        if self.changing {
            self.record.put_files(&renewed)?;
        }
        self.sight.settle();
        self.outdated = false;
        self.changing = false;
        if !self.options.resident {
            self.save();
        }
        Ok(())
    }

    /// Writes down what is known, if anything is that was not.
    pub fn save(&mut self) {
        if !std::mem::take(&mut self.unsaved) || self.is_overtaken() {
            return;
        }
        let (known, outputs) = (&self.known[..self.lasting], &self.outputs[..self.lasting]);
        self.kept.put_state(&self.graph_digest, &self.sight, known, outputs);
        self.left = self.kept.look_of_state();
    }

    /// Whether another process built here since this one last kept its state, or took it away.
    pub fn is_overtaken(&self) -> bool {
        self.kept.look_of_state() != self.left
    }

    /// Closes what is open on disk, for a process that ends. What is in memory goes with the process: giving that back
    /// piece by piece, of ten thousand targets, takes as long as looking at all their files.
    pub fn close(self) {
        let Self { record, store, graph, sight, known, outputs, news, .. } = self;
        drop((record, store));
        std::mem::forget((graph, sight, known, outputs, news));
    }

    /// Whether the recipes are as they were when they were read.
    pub fn recipes_hold(&self) -> bool {
        self.graph.read.holds(&self.root)
    }
}

fn read_recipes(root: &Path, kept: &Kept, options: &Options) -> Result<(KeptPlan, Digest), EngineError> {
    let recipes = load::load(root, options.profile.as_deref())?;
    let mut plan = Plan::new(recipes.decls, &recipes.sources)?;
    let mut settings = recipes.settings;
    for on_change in &mut settings.on_change {
        on_change.questions = on_change.paths.iter().map(|path| plan.ask_about(path)).collect();
    }
    Ok(kept.put_plan(plan, recipes.read, settings))
}

/// Where the store is: the project's word, else the user's, else the usual place.
pub fn cache_dir(settings: &Settings, root: &Path) -> Result<PathBuf, Failure> {
    if let Some(dir) = &settings.cache_dir {
        return Ok(root.join(dir));
    }
    crate::env::cache_dir().ok_or_else(|| {
        Failure::environment("there is no place for the store: neither EFFAI_CACHE_DIR, XDG_CACHE_HOME nor HOME is set")
            .help("set EFFAI_CACHE_DIR, or write cache dir=\"...\" into effai.kdl")
    })
}
