//! `on-change`: what `effai watch` does when targets got new artifacts or files changed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::check;
use super::glob;
use super::mistake::{Mistake, nearest};
use super::node::{Node, Span};
use super::schema::{Schema, Type};
use super::source::Sources;

/// The node's name.
pub const NAME: &str = "on-change";

/// What it may say besides its own name.
pub const SCHEMA: Schema =
    Schema::new(NAME, "What `effai watch` builds or runs when watched targets got new artifacts or files changed.")
        .children(&[
            Schema::new("targets", "Labels, or globs over labels: a new artifact of one of them.")
                .many_args("targets", Type::Text),
            Schema::new("paths", "Files of the project, or globs: another content, a new file, one that went.")
                .many_args("paths", Type::Glob),
            Schema::new("build", "Labels, or globs over labels, to build then.").many_args("build", Type::Text),
            Schema::new("run", "A program and its arguments, run in the project's root with your own environment.")
                .many_args("argv", Type::Text),
        ]);

/// One `on-change`, checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OnChange {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// Labels or globs over labels.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Paths or globs.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Labels or globs over labels.
    #[serde(default)]
    pub build: Vec<String>,
    /// A program and its arguments.
    #[serde(default)]
    pub run: Vec<String>,
    /// The plan's questions about `paths`.
    #[serde(default)]
    pub questions: Vec<u32>,
}

/// An `on-change` with the places of its labels, until the project's labels are known.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) on_change: OnChange,
    labels: Vec<(String, Span)>,
    span: Span,
}

impl Placed {
    /// Reads and checks a node, but for its labels.
    pub(super) fn read(node: &Node, sources: &Sources, mistakes: &mut Vec<Mistake>) -> Option<Self> {
        let Some(name) = node.text() else {
            let mistake = Mistake::new("recipe::missing_value", format!("`{NAME}` needs a name"))
                .mark(sources, node.name_span, "a name in quotes belongs here")
                .help(format!("{NAME} \"tests\" {{ paths \"src/**/*.py\"; run \"pytest\"; }}"));
            mistakes.push(mistake);
            return None;
        };
        let before = mistakes.len();
        let checked = check::check(&SCHEMA, node, "", sources, mistakes);
        if mistakes.len() > before {
            return None;
        }
        let read: OnChange = serde_json::from_value(checked.fields).expect("as the schema says");
        let on_change = OnChange { name: name.to_owned(), ..read };
        let mut lacks = |fields: &str, help: &str| {
            let mistake = Mistake::new("recipe::missing_field", format!("`{NAME}` needs {fields}"))
                .mark(sources, node.name_span, "has neither")
                .help(help);
            mistakes.push(mistake);
        };
        if on_change.targets.is_empty() && on_change.paths.is_empty() {
            lacks("`targets` or `paths`", "what is it to wait for?");
        }
        if on_change.build.is_empty() && on_change.run.is_empty() {
            lacks("`build` or `run`", "what is it to do?");
        }
        if mistakes.len() > before {
            return None;
        }
        let field = |name: &str, words: &[String]| -> Vec<(String, Span)> {
            let place = |i: usize| checked.spans.get(&format!("{name}.{i}")).or(checked.spans.get(name));
            let span = |i: usize| place(i).copied().unwrap_or(node.name_span);
            words.iter().enumerate().map(|(i, word)| (word.clone(), span(i))).collect()
        };
        let labels = [field("targets", &on_change.targets), field("build", &on_change.build)].concat();
        let span = node.args().next().map_or(node.name_span, |e| e.span);
        Some(Self { on_change, labels, span })
    }

    /// Finds words that name no target, and a name that another one has.
    pub(super) fn check(
        &self,
        known: &BTreeSet<&str>,
        others: &[Placed],
        sources: &Sources,
        mistakes: &mut Vec<Mistake>,
    ) {
        if let Some(first) = others.iter().find(|other| other.on_change.name == self.on_change.name) {
            let message = format!("there are two `{NAME} \"{}\"`", self.on_change.name);
            let mistake = Mistake::new("recipe::twice", message).mark(sources, self.span, "again here").mark(
                sources,
                first.span,
                "first here",
            );
            mistakes.push(mistake);
        }
        for (word, span) in &self.labels {
            if known.contains(word.as_str()) {
                continue;
            }
            let mistake = match glob::compile(word) {
                Ok(matcher) if known.iter().any(|label| matcher.is_match(label)) => continue,
                Err(error) => Mistake::new("recipe::wrong_value", error.to_string()).mark(sources, *span, "this glob"),
                Ok(_) => {
                    let help = match nearest(word, known.iter().copied()) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => "`effai graph` shows the targets there are".into(),
                    };
                    Mistake::new("recipe::unknown_target", format!("there is no target `{word}`"))
                        .mark(sources, *span, "names none")
                        .help(help)
                }
            };
            mistakes.push(mistake);
        }
    }
}
