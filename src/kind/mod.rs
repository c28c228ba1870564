//! What effai can make: one file a kind, and the list of them.
//!
//! A kind is a schema (what its declaration may say), a version (what `run` means), the parts it stands
//! on, the resources it needs, and a run. Everything but `run` is pure. What a kind prints, stores or
//! schedules is not its business: `run` gets an [`ActionCx`] with its inputs as directories and fills
//! one directory of its own; it runs in a child process, and what it says goes out as events.
//!
//! Adding a kind touches its file, [`KINDS`], a page in `docs/kinds/`, a recipe in `recipes/` and a case
//! in `tests/kinds/`.

pub mod adapter;
pub mod benchmark;
pub mod command;
pub mod dataset;
pub mod environment;
pub mod export;
mod exported;
pub mod features;
pub mod fetch;
pub mod hardware;
pub mod merge;
pub mod model;
pub mod notebook;
pub mod perplexity;
pub mod python;
pub mod quantized;
pub mod report;
mod revision;
pub mod speed;
pub mod test;
pub mod training;
mod workplace;

pub use workplace::CHECKPOINT;

use std::path::{Path, PathBuf};

use crate::action::program::Program;
use crate::action::worker::Calls;
use crate::backend::{self, Backend, Choice, Precision};
use crate::event::ActionEvent;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Schema, Type};

/// The field of kinds that compute: a target that says nothing is made by whichever is chosen, and who made it is no
/// fact.
pub const BACKEND: Schema = Schema::new(
    "backend",
    "What computes it, and nothing else; where it is not said, what `--backend` says, or the best there is.",
)
.arg("name", Type::Choice(backend::NAMES));

/// Every kind there is.
pub const KINDS: &[&dyn Kind] = &[
    &command::Command,
    &dataset::Dataset,
    &environment::Environment,
    &fetch::Fetch,
    &features::Features,
    &model::Model,
    &adapter::Adapter,
    &merge::Merge,
    &quantized::Quantized,
    &export::Export,
    &report::Report,
    &speed::Speed,
    &hardware::Hardware,
    &perplexity::Perplexity,
    &python::Python,
    &notebook::Notebook,
    &test::Test,
    &training::Training,
    &benchmark::Benchmark,
];

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.schema().name == name)
}

/// The kind of what no recipe declares: a target as the lock of a git revision has it, which others name.
pub static AT_REVISION: &dyn Kind = &revision::AtRevision;

/// The kind of a checked declaration.
///
/// # Panics
/// If it is of none: a declaration that was not checked.
pub fn of(decl: &Decl) -> &'static dyn Kind {
    let implied = || (AT_REVISION.schema().name == decl.kind).then_some(AT_REVISION);
    find(&decl.kind).or_else(implied).expect("a checked declaration is of a known kind")
}

/// One sort of thing effai can make.
pub trait Kind: Sync {
    /// What a declaration may say. Its name is the node's name, the file's name in this folder and the
    /// page's name in `docs/kinds/`.
    fn schema(&self) -> &'static Schema;

    /// Raised when `run` gives different bytes for the same facts.
    fn version(&self) -> u32;

    /// Finds mistakes that the schema cannot: fields that contradict one another.
    fn check(&self, _decl: &Decl, _problems: &mut Problems<'_>) {}

    /// Targets this one stands on besides those it names: the download of a source, the features of a
    /// frozen tower. Each is a target of its own, `LABEL:NAME`, shared by key with any other like it.
    fn parts(&self, _decl: &Decl) -> Vec<Part> {
        Vec::new()
    }

    /// Targets without which this one's artifact is of no use: an adapter's base model. Whoever takes the
    /// artifact as an input gets these as inputs too.
    fn alongside(&self, _decl: &Decl) -> Vec<String> {
        Vec::new()
    }

    /// What an action of this declaration needs and promises.
    fn needs(&self, _decl: &Decl) -> Needs {
        Needs::default()
    }

    /// Fields of a declaration that decide how much memory it takes, by the names a recipe has for them.
    fn weighs(&self, _decl: &Decl) -> &'static [&'static str] {
        &[]
    }

    /// Whether a number that its action gave is one that people compare versions by, and not one of very many or of the
    /// run's own speed: those are in the lock.
    fn is_main(&self, _metric: &str) -> bool {
        true
    }

    /// Who does the work.
    fn how(&self) -> How<'_>;

    /// What processes do that its actions start of this program, where they do.
    fn serves(&self) -> Option<&dyn Serve> {
        None
    }
}

/// How an action of a kind is done.
pub enum How<'a> {
    /// By code of this program, in a process of its own.
    Inside(&'a dyn Run),
    /// By one other program.
    Program(&'a dyn Launch),
}

/// Work that this program does itself.
pub trait Run: Sync {
    /// Makes the artifact in `cx.out()`.
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure>;
}

/// Work that an action asks of processes of its own, piece by piece: `action/worker.rs`.
pub trait Serve: Sync {
    /// Makes ready what the task says, tells so, and does work of it as long as somebody asks.
    fn serve(&self, task: serde_json::Value, calls: &mut Calls) -> Result<(), Failure>;
}

/// Work that is one program's. These steps run in the build's own process, so they only move files about.
pub trait Launch: Sync {
    /// Lays out what the program reads, in `cx.scratch()`, where it will run; and says what to start.
    fn prepare(&self, cx: &mut ActionCx<'_>) -> Result<Program, Failure>;

    /// Tells what the program left of itself, however it ended.
    fn ended(&self, _cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes what the program made, and the numbers that were told of it, into `cx.out()`.
    fn conclude(&self, cx: &mut ActionCx<'_>, told: &Metrics) -> Result<(), Failure>;
}

/// A target that another one brings along.
pub struct Part {
    /// The part's name: the target is `LABEL:NAME`.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its checked fields, in the JSON shape of its schema (see [`crate::recipe::schema`]).
    /// Defaults are filled in by the caller.
    pub fields: serde_json::Value,
}

/// What an action needs from the machine and promises about its result.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Which pool it runs in.
    pub pool: Pool,
    /// Two runs give the same bytes. What measures time does not.
    pub repeatable: bool,
    /// The result holds measurements of this machine, whose identity is then a fact.
    pub measures: bool,
}

impl Default for Needs {
    fn default() -> Self {
        Self { pool: Pool::Cpu, repeatable: true, measures: false }
    }
}

/// Where an action waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pool {
    /// One thread's work; as many at once as jobs.
    Cpu,
    /// Uses the GPU: one at a time, beside others' work on the CPU.
    Gpu,
    /// Uses all threads: one at a time, alone.
    Machine,
    /// Waits for the network: a few at once, with the user's environment (indexes, proxies).
    Network,
}

impl Pool {
    /// Its name in the record.
    pub fn name(self) -> &'static str {
        match self {
            Pool::Cpu => "cpu",
            Pool::Gpu => "gpu",
            Pool::Machine => "machine",
            Pool::Network => "network",
        }
    }
}

/// What a running action has: its declaration, its inputs, a directory to fill and a way to speak.
pub struct ActionCx<'a> {
    /// The checked declaration.
    pub decl: &'a Decl,
    /// How many threads to use; never a fact, so results must not depend on it.
    pub threads: usize,
    /// The project's root, under which `File` and `Glob` fields lie.
    pub(crate) project: PathBuf,
    /// Target label -> directory with its artifact (read-only).
    pub(crate) inputs: std::collections::BTreeMap<String, PathBuf>,
    pub(crate) out: PathBuf,
    pub(crate) scratch: PathBuf,
    /// A program may read only what it was given.
    pub(crate) is_held: bool,
    pub(crate) backend: Choice,
    pub(crate) events: &'a mut dyn FnMut(ActionEvent),
}

impl ActionCx<'_> {
    /// What computes; goes into the record. The one that was chosen is tried first: where it does not work and the
    /// recipe does not insist, another takes its place with a warning.
    pub fn backend(&mut self) -> Result<Backend, Failure> {
        let Choice { backend, is_pinned } = self.backend;
        let backend = match backend.probe() {
            Ok(()) => backend,
            Err(error) if is_pinned || backend == Backend::Candle => return Err(error.into()),
            Err(error) => {
                self.warning(format!("{error}; candle computes instead"), Some(error.help().into()));
                Backend::Candle
            }
        };
        // Found out once.
        self.backend = Choice { backend, is_pinned: true };
        self.tell_backend(backend);
        Ok(backend)
    }

    /// Says for the record which backend computes, where a kind has no choice.
    pub fn tell_backend(&mut self, backend: Backend) {
        (self.events)(ActionEvent::Backend { name: backend.name().into() });
    }

    /// [`Self::backend`] for what is computed in a precision: nothing takes the place of a backend that has it, and one that
    /// does not is refused.
    pub fn backend_in(&mut self, precision: Precision) -> Result<Backend, Failure> {
        let (backend, name) = (self.backend.backend, precision.name());
        if !backend.has(precision) {
            let what = format!("`precision \"{name}\"` needs MLX, and {} was to compute", backend.name());
            return Err(Failure::user(what).help("take `--backend mlx`, or leave `precision` out"));
        }
        self.backend.is_pinned |= !Backend::Candle.has(precision);
        self.backend()
    }

    /// The directory to fill: what is in it at the end is the artifact.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// A directory for what is not kept.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The artifact of a target named in the declaration, as a read-only directory.
    ///
    /// # Panics
    /// If the declaration does not name that target: a bug in the kind.
    pub fn input(&self, label: &str) -> &Path {
        self.inputs.get(label).unwrap_or_else(|| panic!("`{label}` is not an input of {}", self.decl.label))
    }

    /// The artifact of one of this target's parts.
    pub fn part(&self, name: &str) -> &Path {
        self.input(&format!("{}:{name}", self.decl.label))
    }

    /// Whether the system holds a program to reading what it was given, and to writing where it runs: then it can be
    /// given a link to a file of the project.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// A file of the project, named by a `File` field.
    pub fn project_file(&self, path: impl AsRef<Path>) -> PathBuf {
        self.project.join(path)
    }

    /// The project's root.
    pub fn project_root(&self) -> &Path {
        &self.project
    }

    /// The files a `Glob` field stands for, relative to the project's root, sorted.
    pub fn project_files(&self, glob: &str) -> Result<Vec<PathBuf>, Failure> {
        crate::recipe::glob::expand(&self.project, glob).map_err(|e| Failure::environment(e.to_string()))
    }

    /// Says how far the work is. Cheap; the engine drops what comes too often.
    pub fn progress(&mut self, what: &str, done: u64, total: impl Into<Option<u64>>, unit: &str) {
        (self.events)(ActionEvent::Progress { what: what.into(), done, total: total.into(), unit: unit.into() });
    }

    /// Records one number, kept with the action.
    pub fn metric(&mut self, name: &str, value: f64) {
        (self.events)(ActionEvent::Metric { name: name.into(), step: None, value });
    }

    /// Records one point of a curve.
    pub fn metric_at(&mut self, name: &str, step: u64, value: f64) {
        (self.events)(ActionEvent::Metric { name: name.into(), step: Some(step), value });
    }

    /// A line for the action's log.
    pub fn log(&mut self, text: impl Into<String>) {
        (self.events)(ActionEvent::Log { text: text.into() });
    }

    /// Something the user should know although the action goes on.
    pub fn warning(&mut self, text: impl Into<String>, help: Option<String>) {
        (self.events)(ActionEvent::Warning { text: text.into(), help });
    }

    /// An optional source could not be had. The artifact should say so.
    pub fn left_out(&mut self, reason: impl Into<String>) {
        (self.events)(ActionEvent::LeftOut { reason: reason.into() });
    }
}
