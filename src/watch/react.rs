//! `on-change`: targets that are built and commands that run when others got a new artifact or files changed.

use std::collections::{BTreeSet, HashMap};

use super::{Host, Open, Watch};
use crate::action::run_here;
use crate::engine::{Engine, EngineError};
use crate::event::Event;
use crate::fingerprint::Digest;
use crate::plan::{Index, Plan, UnknownTarget};
use crate::recipe::on_change::OnChange;

/// The project's `on-change`, each with what it waits for.
pub(super) struct Reactions {
    all: Vec<Reaction>,
    /// The artifacts of targets that are waited for, as they last were.
    artifacts: HashMap<Index, Digest>,
}

struct Reaction {
    on_change: OnChange,
    targets: Vec<Index>,
    build: Vec<Index>,
}

impl Reactions {
    pub(super) fn new(engine: &Engine) -> Result<Self, UnknownTarget> {
        let plan = engine.plan();
        let all = engine.settings().on_change.iter().map(|on_change| {
            let (targets, build) = (named(plan, &on_change.targets)?, named(plan, &on_change.build)?);
            Ok(Reaction { on_change: on_change.clone(), targets, build })
        });
        Ok(Self { all: all.collect::<Result<_, _>>()?, artifacts: HashMap::new() })
    }

    /// These targets, and those that may be built besides.
    pub(super) fn with_built(&self, chosen: &[Index]) -> Vec<Index> {
        chosen.iter().chain(self.all.iter().flat_map(|r| &r.build)).copied().collect()
    }

    /// What the plan is asked about paths.
    pub(super) fn questions(&self) -> impl Iterator<Item = u32> {
        self.all.iter().flat_map(|r| &r.on_change.questions).copied()
    }

    /// Takes the artifacts as they are, or last were, for what later ones are compared with.
    pub(super) fn remember(&mut self, engine: &Engine) {
        let recorded = |index| engine.state(&engine.label(index)).ok().flatten().map(|state| state.artifact);
        for index in self.all.iter().flat_map(|r| &r.targets) {
            if let Some(artifact) = engine.artifact(*index).or_else(|| recorded(*index)) {
                self.artifacts.insert(*index, artifact);
            }
        }
    }

    /// The next in the order of the text that has something to react to and had no turn yet.
    fn next(&self, engine: &Engine, changed: &BTreeSet<u32>, done: &BTreeSet<usize>) -> Option<usize> {
        let is_new = |i: &Index| engine.artifact(*i).is_some_and(|a| self.artifacts.get(i) != Some(&a));
        let fires =
            |r: &Reaction| r.targets.iter().any(is_new) || r.on_change.questions.iter().any(|q| changed.contains(q));
        (0..self.all.len()).find(|at| !done.contains(at) && fires(&self.all[*at]))
    }
}

fn named(plan: &Plan, words: &[String]) -> Result<Vec<Index>, UnknownTarget> {
    if words.is_empty() { Ok(Vec::new()) } else { plan.select(words) }
}

impl Watch {
    /// Gives each `on-change` its turn that has something to react to, once: what one of them builds may be what
    /// another waits for.
    pub(super) fn react(&mut self, open: &mut Open, host: &mut dyn Host) -> Result<(), EngineError> {
        let mut changed = BTreeSet::new();
        let mut done = BTreeSet::new();
        loop {
            changed.extend(open.engine.take_changed());
            let Some(at) = open.reactions.next(&open.engine, &changed, &done) else { break };
            done.insert(at);
            let Reaction { on_change, build, .. } = &open.reactions.all[at];
            let (name, build, run) = (on_change.name.clone(), build.clone(), on_change.run.clone());
            host.see(&Event::Reacting { name: name.clone() });
            if !build.is_empty() {
                self.build(open, &build, host)?;
            }
            let runs = !run.is_empty() && !self.cancel.is_asked();
            let ran = if runs { run_here(&run, &self.root, &self.cancel) } else { Ok(()) };
            self.interrupted |= ran.is_err() && self.cancel.is_asked();
            host.see(&Event::Reacted { name, failure: ran.err() });
            if self.cancel.is_asked() {
                break;
            }
        }
        open.reactions.remember(&open.engine);
        Ok(())
    }
}
