//! Every label of a project: where it is declared, and where it is named.
//!
//! Read from the texts' outlines and not from checked declarations, so that it holds while recipes have mistakes,
//! and so that what a profile or a matrix says is in it too.

use std::collections::BTreeSet;
use std::path::Path;

use super::documents::Recipe;
use super::grammar::{self, Meaning, Sort};
use super::project::Place;
use crate::plan::resolve;
use crate::recipe::outline::{Item, Word};
use crate::recipe::schema::Type;

/// More combinations than any matrix has; beyond it the rest is not looked at.
const COMBINATIONS_MAX: usize = 10_000;

/// Every target, and every place that names one.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) targets: Vec<Target>,
    pub(super) references: Vec<Reference>,
}

/// A declaration.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: &'static str,
    /// The whole of it.
    pub(super) whole: Place,
    pub(super) label: Written,
}

/// A place that names a target.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) label: Written,
    /// The declaration it stands in, in [`Index::targets`]; none in `default`.
    pub(super) within: Option<usize>,
}

/// A recipe, and the project it is read for.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path,
    base: &'a str,
}

/// A label as it is written.
#[derive(Debug)]
pub(super) struct Written {
    /// With its quotes.
    pub(super) place: Place,
    /// Without its quotes.
    pub(super) inner: std::ops::Range<usize>,
    /// As it stands there, `models/q{bits}`.
    pub(super) text: String,
    /// The directory of the project whose recipe it stands in.
    pub(super) base: String,
    /// What it means, whole: several in a matrix.
    pub(super) labels: Vec<String>,
}

impl Written {
    /// Whether it means this label, alone or with others.
    pub(super) fn means(&self, label: &str) -> bool {
        self.labels.iter().any(|l| l == label)
    }

    /// As it stands there, as a label of the outermost project.
    pub(super) fn whole(&self) -> String {
        resolve(&self.base, &self.text)
    }

    /// Whether a matrix makes labels of it.
    pub(super) fn is_pattern(&self) -> bool {
        self.labels.len() != 1 || self.labels[0] != self.whole()
    }
}

impl Index {
    /// Reads recipes, given with their paths from the root.
    /// Each with the directory of the project it is read for.
    pub(super) fn of<'a>(recipes: impl IntoIterator<Item = (&'a Path, &'a str, &'a Recipe)>) -> Self {
        let mut index = Self::default();
        for (path, base, recipe) in recipes {
            let at = At { path, base };
            for item in recipe.outline.items.iter().filter(|item| !item.ignored) {
                if let Some(meaning) = grammar::top(&item.name.text) {
                    index.top(at, item, meaning);
                }
            }
        }
        index
    }

    /// Every declared label.
    pub(super) fn labels(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().flat_map(|t| &t.label.labels).map(String::as_str)
    }

    /// The declarations of a label; of a part's label, `x:y`, or of `x@v1`, those of `x`.
    pub(super) fn declared(&self, label: &str) -> impl Iterator<Item = &Target> {
        let label = label.split([':', '@']).next().unwrap_or_default().to_owned();
        self.targets.iter().filter(move |t| t.label.means(&label))
    }

    /// The label written at a place, by its declaration or by a reference.
    pub(super) fn written_at(&self, path: &Path, offset: usize) -> Option<&Written> {
        let all = self.targets.iter().map(|t| &t.label).chain(self.references.iter().map(|r| &r.label));
        all.into_iter().find(|w| w.place.path == path && w.place.bytes.start <= offset && offset <= w.place.bytes.end)
    }

    fn top(&mut self, at: At<'_>, item: &Item, meaning: Meaning) {
        let axes = axes(item);
        let within = match (meaning.sort, item.args().next()) {
            (Sort::Target, Some(word)) if !word.text.is_empty() => {
                let whole = Place { path: at.path.to_owned(), bytes: item.range.clone() };
                let label = written(at, word, &axes);
                self.targets.push(Target { kind: meaning.schema.name, whole, label });
                Some(self.targets.len() - 1)
            }
            _ => None,
        };
        self.references(at, item, meaning, within, &axes);
    }

    fn references(&mut self, at: At<'_>, item: &Item, meaning: Meaning, within: Option<usize>, axes: &[Axis]) {
        let mut number = 0;
        for word in item.words.iter().filter(|w| !w.ignored) {
            let ty = meaning.word(word, number);
            number += usize::from(word.key.is_none());
            if ty.is_some_and(Type::is_label) && !word.text.is_empty() {
                self.references.push(Reference { label: written(at, word, axes), within });
            }
        }
        for child in item.children() {
            if let Some(meaning) = meaning.child(&child.name.text) {
                self.references(at, child, meaning, within, axes);
            }
        }
    }
}

/// One line of a matrix: its placeholder and its values.
pub(super) struct Axis {
    pub(super) placeholder: String,
    values: BTreeSet<String>,
}

/// The lines of a declaration's matrix, those that profiles lay over it included.
pub(super) fn axes(item: &Item) -> Vec<Axis> {
    let profiles = item.children().filter(|c| c.name.text == "profile").flat_map(Item::children);
    let mut axes: Vec<Axis> = Vec::new();
    for line in item.children().chain(profiles).filter(|c| c.name.text == "matrix").flat_map(Item::children) {
        let placeholder = format!("{{{}}}", line.name.text);
        let values = line.args().map(|w| w.text.trim_start_matches('#').to_owned());
        match axes.iter_mut().find(|a| a.placeholder == placeholder) {
            Some(axis) => axis.values.extend(values),
            None => axes.push(Axis { placeholder, values: values.collect() }),
        }
    }
    axes
}

fn written(at: At<'_>, word: &Word, axes: &[Axis]) -> Written {
    let mut labels = vec![word.text.clone()];
    for Axis { placeholder, values } in axes {
        if word.text.contains(placeholder) && labels.len() * values.len() <= COMBINATIONS_MAX {
            labels = labels.iter().flat_map(|l| values.iter().map(|v| l.replace(placeholder, v))).collect();
        }
    }
    labels.iter_mut().for_each(|label| *label = resolve(at.base, label));
    let place = Place { path: at.path.to_owned(), bytes: word.range.clone() };
    Written { place, inner: word.inner.clone(), text: word.text.clone(), base: at.base.to_owned(), labels }
}
