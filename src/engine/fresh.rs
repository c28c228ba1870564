//! What an engine that stays can say of targets without looking at any file: for `watch`, which knows by events what did
//! not change since it was looked at. Nothing here changes what is known.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Engine, deliver, revision, sight};
use crate::action::interpreter::Seen;
use crate::fingerprint::evidence::Place;
use crate::plan::{Index, Question};

/// What the answer to a question of the plan was, where another process may get another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Surrounding {
    /// A variable of the environment: its name and what is known of it.
    Variable(String, String),
    /// A program of the search path, likewise.
    Tool(String, String),
    /// A Python interpreter.
    Python(Box<Seen>),
    /// A target as a revision has it, in the project of this root: its name and what is known of it.
    AtRevision(PathBuf, String, String),
}

impl Surrounding {
    /// Whether this process gets the same answer.
    pub fn holds(&self) -> bool {
        match self {
            Surrounding::Variable(name, answer) => sight::variable(name) == *answer,
            Surrounding::Tool(name, answer) => sight::tool(name) == *answer,
            Surrounding::Python(seen) => seen.holds(),
            Surrounding::AtRevision(root, name, answer) => revision::ask(root, name) == *answer,
        }
    }
}

impl Engine {
    /// Whether all of these targets, given with all that they stand on and in topological order, are as the last build
    /// left them: nothing that was looked at has another answer since.
    pub fn are_known(&self, closure: &[Index]) -> bool {
        let mut artifacts = vec![None; self.plan().len()];
        closure.iter().all(|&index| {
            artifacts[index] = self.unchanged(index, &artifacts).map(|(_, artifact)| artifact);
            artifacts[index].is_some()
        })
    }

    /// What these questions were answered from the surroundings of this process.
    pub fn surroundings(&self, questions: impl Iterator<Item = u32>) -> Vec<Surrounding> {
        let told = questions.filter_map(|q| {
            let answer = || self.sight.text_of(q).to_owned();
            match self.plan().question(q as usize) {
                Question::Tool(name) => Some(Surrounding::Tool(name.to_owned(), answer())),
                Question::Variable(name) => Some(Surrounding::Variable(name.to_owned(), answer())),
                Question::Python(..) => Some(Surrounding::Python(Box::new(self.sight.python_of(q)?.clone()))),
                Question::AtRevision(name) => {
                    Some(Surrounding::AtRevision(self.root.clone(), name.to_owned(), answer()))
                }
                Question::File(_) | Question::Glob(..) | Question::Machine => None,
            }
        });
        told.collect()
    }

    /// Whether the evidence of what these questions stand for holds, by a look at each file and directory.
    pub fn evidence_holds(&self, mut questions: impl Iterator<Item = u32>) -> bool {
        let place = Place::open(&self.root);
        questions.all(|q| self.sight.holds(&place, q))
    }

    /// Those of these targets whose known artifact lies in `out/` as it was placed, by a look at each file.
    pub fn lying(&self, chosen: &[Index]) -> Vec<Index> {
        let root = Place::open(&self.root);
        let (plan, known, outputs) = (&self.graph.plan, &self.known, &self.outputs);
        let is_known = |i: Index| outputs[i].as_ref().map(|output| output.artifact) == known[i].map(|k| k.artifact);
        sight::sift(chosen, |i| is_known(i) && deliver::lies_as_placed(&root, plan.name(i), outputs[i].as_ref()))
    }

    /// Whether what was last placed for a target is its known artifact.
    pub fn is_delivered(&self, index: Index) -> bool {
        self.outputs[index].as_ref().is_some_and(|output| self.artifact(index) == Some(output.artifact))
    }

    /// The files that were placed for a target, from its directory.
    pub fn placed(&self, index: Index) -> impl Iterator<Item = &Path> {
        self.outputs[index].iter().flat_map(|output| &output.placed).map(|placed| placed.path.as_path())
    }

    /// The target in whose directory a path below `out/` lies.
    pub fn whose(&self, path: &Path) -> Option<Index> {
        path.ancestors().find_map(|path| self.plan().find(path.to_str()?))
    }
}
