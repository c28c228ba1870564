//! A checked declaration: what a kind, the plan and the manifest work with.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mistake::Mistake;
use super::node::Span;
use super::schema::Type;
use super::source::Sources;
use super::walk::walk;
use crate::plan::Label;

/// One target as declared, after matrix, profile and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decl {
    /// The kind's name.
    pub kind: String,
    /// The target's label.
    pub label: Label,
    /// The directory of its project below the outermost one; empty for the outermost. Paths and labels in the fields
    /// are as that project says them.
    pub base: String,
    /// Words it can be chosen by.
    pub tags: Vec<String>,
    /// The fields, in the shape [`super::schema`] describes.
    pub fields: Value,
    /// Where each field stands in its recipe: dotted path -> place. `""` is the declaration's label.
    pub spans: BTreeMap<String, Span>,
}

impl Decl {
    /// Reads the fields into a kind's own type.
    ///
    /// # Panics
    /// If the type does not fit the kind's schema: a bug in the kind, found by its first test.
    pub fn read<T: DeserializeOwned>(&self) -> T {
        T::deserialize(&self.fields)
            .unwrap_or_else(|e| panic!("the fields of kind `{}` do not fit its schema: {e}", self.kind))
    }

    /// The variables that are handed through to it.
    pub fn variables(&self) -> Vec<String> {
        let kind = crate::kind::of(self);
        let mut names = Vec::new();
        walk(kind.schema(), &self.fields, &mut |visit| {
            if visit.ty == Type::Variable {
                names.extend(visit.value.as_str().map(str::to_owned));
            }
        });
        names
    }

    /// Where a field stands: `train.epochs`, `source.1.sha256`; the nearest enclosing place if it was a default.
    pub fn span(&self, path: &str) -> Span {
        let mut path = path;
        loop {
            if let Some(span) = self.spans.get(path) {
                return *span;
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None => return self.spans.get("").copied().unwrap_or_default(),
            }
        }
    }
}

/// Collects the mistakes of one declaration.
pub struct Problems<'a> {
    pub(crate) decl: &'a Decl,
    pub(crate) sources: &'a Sources,
    pub(crate) mistakes: &'a mut Vec<Mistake>,
}

impl Problems<'_> {
    /// Reports a mistake at a field (a dotted path as in [`Decl::span`]): the message, the words under
    /// the mark, and the next step.
    pub fn at(&mut self, path: &str, message: impl Into<String>, mark: impl Into<String>, help: impl Into<String>) {
        let mistake = Mistake::new("recipe::contradiction", message.into())
            .mark(self.sources, self.decl.span(path), mark.into())
            .help(help.into());
        self.mistakes.push(mistake);
    }
}
