//! One action from its inputs in the store to its artifact there: what a worker thread does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoints;
use super::scratch::Shared;
use crate::action::{Cancel, Cost, Ended, Job, Runner};
use crate::backend::Choice;
use crate::engine::Engine;
use crate::event::ActionEvent;
use crate::failure::{Class, Failure};
use crate::fingerprint::Digest;
use crate::kind::{CHECKPOINT, Pool};
use crate::plan::{Index, Label, seen_from};
use crate::store::{Ingested, Store};
use crate::util::fs;

/// What it has to know.
pub(super) struct Work {
    inputs: Vec<(Index, String, Digest)>,
    pub(super) job: Job,
    pub(super) pool: Pool,
    scratch: PathBuf,
    log: PathBuf,
    store: Store,
    shared: Arc<Shared>,
}

impl Work {
    pub(super) fn new(
        engine: &Engine,
        (index, key): (Index, &Digest),
        artifacts: &[Option<Digest>],
        threads: usize,
        shared: Arc<Shared>,
        scratch: &Path,
        log: &Path,
    ) -> Result<Self, Failure> {
        let plan = engine.plan();
        let inputs = plan
            .input_names(index)
            .into_iter()
            .map(|(name, input)| (input, name, artifacts[input].expect("a ready target's inputs are known")));
        let mut decl = engine.decl(index)?;
        // Its action knows it as its own project does, so that the bytes are those of a build of that project alone.
        decl.label = Label::new(seen_from(&decl.base, decl.label.as_str()));
        let asks = decl.fields[CHECKPOINT.name].as_bool() == Some(true);
        let checkpoint = asks.then(|| checkpoints::dir(&engine.root, key));
        let backend = Choice::of(decl.fields["backend"].as_str(), engine.backend());
        Ok(Self {
            inputs: inputs.collect(),
            job: Job {
                decl,
                inputs: BTreeMap::new(),
                project: engine.root.join(plan.base(index)),
                out: scratch.join("out"),
                scratch: scratch.join("work"),
                threads,
                backend,
                is_sandboxed: engine.is_sandboxed(),
                checkpoint,
                watched: None,
            },
            pool: plan.needs(index).pool,
            scratch: scratch.to_owned(),
            log: log.to_owned(),
            store: engine.store.clone(),
            shared,
        })
    }

    /// Runs it. `made` is called when what ran has ended well, before its output is taken in.
    pub(super) fn run(
        mut self,
        runner: &dyn Runner,
        cancel: &Cancel,
        say: &mut dyn FnMut(ActionEvent),
        made: impl FnOnce(),
    ) -> Done {
        match self.lay_out() {
            Ok(()) => {}
            Err(problem) => return Done { ended: Err(problem), cost: Cost::default() },
        }
        let (ended, cost) = runner.run(&self.job, self.pool, &self.log, cancel, say);
        let ended = match ended {
            Ended::Done => {
                made();
                self.take_in()
            }
            Ended::Failed(failure) => Err(Problem::Failed(self.with_disk(failure))),
            Ended::Undeclared { failure, lines } => Err(Problem::Undeclared(self.with_disk(failure), lines)),
            Ended::Cancelled => Err(Problem::Cancelled),
        };
        Done { ended, cost }
    }

    /// The job's inputs and what it kept, in place.
    pub(super) fn lay_out(&mut self) -> Result<(), Problem> {
        self.job.checkpoint.as_deref().map_or(Ok(()), fs::create_dir_all).map_err(|e| Problem::Failed(e.into()))?;
        for (index, label, artifact) in &self.inputs {
            match self.shared.lay(&self.store, artifact) {
                Ok(dir) => drop(self.job.inputs.insert(label.clone(), dir)),
                Err(error) if error.is_repairable() => return Err(Problem::InputGone(*index)),
                Err(error) => return Err(Problem::Failed(error.into())),
            }
        }
        Ok(())
    }

    /// A program that says it failed where the disk is full failed for that.
    fn with_disk(&self, failure: Failure) -> Failure {
        if failure.class != Class::Target || !fs::is_full(&self.scratch) {
            return failure;
        }
        let disk = format!("the disk that holds {} is full: {}", self.scratch.display(), failure.message);
        Failure::environment(disk).help("free some space and build again")
    }

    /// What was made goes into the store; the rest goes.
    fn take_in(&self) -> Result<Ingested, Problem> {
        let ingested =
            self.store.blobs.ingest(&self.store.index, &self.job.out).map_err(|e| Problem::Failed(e.into()))?;
        self.shared.empty(&self.scratch).map_err(|e| Problem::Failed(e.into()))?;
        Ok(ingested)
    }
}

/// What became of it.
pub(super) struct Done {
    pub(super) ended: Result<Ingested, Problem>,
    pub(super) cost: Cost,
}

/// Why an action has no artifact.
pub(super) enum Problem {
    Failed(Failure),
    /// What its declaration may lack.
    Undeclared(Failure, Vec<String>),
    Cancelled,
    /// The store lacks bytes of this input.
    InputGone(Index),
}

impl Problem {
    /// As it is told where nothing can be made again.
    pub(super) fn failure(self, engine: &Engine) -> Failure {
        match self {
            Problem::Failed(failure) | Problem::Undeclared(failure, _) => failure,
            Problem::Cancelled => Failure::target("it was stopped"),
            Problem::InputGone(index) => {
                Failure::environment(format!("the store lacks bytes of `{}`", engine.label(index)))
                    .help("`effai cache verify --repair`, then build again")
            }
        }
    }
}
