//! What is known of the word under the cursor: kinds, fields and properties from their schemas, labels from the
//! recipes.

use std::collections::BTreeSet;

use lsp_types::{Hover, HoverContents, MarkupContent, MarkupKind};

use super::grammar::{self, Meaning, Sort};
use super::index::Target;
use super::place::{On, Place};
use super::view::View;
use crate::recipe::schema::{Args, Count, Prop, Schema};

/// Lines of a declaration that are shown.
const LINES_MAX: usize = 10;

/// Answers a hover.
pub(super) fn hover(view: &View<'_>, offset: usize) -> Option<Hover> {
    if let Some(written) = view.index().written_at(&view.path, offset) {
        let targets: Vec<&Target> = written.labels.iter().flat_map(|l| view.index().declared(l)).collect();
        let mut shown: Vec<String> = Vec::new();
        for target in targets {
            let text = label(view, target);
            if !shown.contains(&text) {
                shown.push(text);
            }
        }
        if !shown.is_empty() {
            return Some(markdown(view, shown.join("\n\n---\n\n"), &written.place.bytes));
        }
    }
    let place = Place::at(&view.recipe.outline, offset);
    let meaning = grammar::meaning(&place.path())?;
    match place.on {
        On::Name(item) => Some(markdown(view, node(meaning, &item.name.text), &item.name.range)),
        On::Key(_, word) => {
            let (name, range) = word.key.as_ref()?;
            Some(markdown(view, property(meaning.property(name)?), range))
        }
        On::Value(value) => {
            let word = value.word?;
            let text = match &word.key {
                Some((name, _)) => property(meaning.property(name)?),
                None => node(meaning, &value.item.name.text),
            };
            Some(markdown(view, text, &word.range))
        }
        On::Nothing | On::Void => None,
    }
}

/// The words about a node: a kind, a field, a setting.
pub(super) fn node(meaning: Meaning, name: &str) -> String {
    let schema = meaning.schema;
    match meaning.sort {
        Sort::Target => format!("**{name}** · kind\n\n{}{}", schema.doc, fields(schema)),
        Sort::Setting => format!("**{name}** · setting of the project{}\n\n{}", argument(schema), schema.doc),
        Sort::Matrix | Sort::Profile(_) => format!("**{name}**\n\n{}", schema.doc),
        Sort::Axis => format!("**{name}** · its values, one target for each; `{{{name}}}` stands for them"),
        Sort::Column(ty) => format!("**{name}** · {ty}"),
        Sort::Field => {
            let often = match schema.count {
                Count::Required => " · required",
                Count::Some => " · required, may be repeated",
                Count::Many => " · may be repeated",
                Count::Optional => "",
            };
            let default = schema.default.map(|d| format!(" · default `{}`", d.to_json())).unwrap_or_default();
            format!("**{name}**{}{often}{default}\n\n{}{}", argument(schema), schema.doc, fields(schema))
        }
    }
}

/// The words about a property.
pub(super) fn property(prop: &Prop) -> String {
    let default = prop.default.map(|d| format!(" · default `{}`", d.to_json())).unwrap_or_default();
    let required = if prop.required { " · required" } else { "" };
    format!("**{}=** · {}{required}{default}\n\n{}", prop.name, prop.ty, prop.doc)
}

fn argument(schema: &Schema) -> String {
    match schema.args {
        Args::None => String::new(),
        Args::One(_, ty) => format!(" · {ty}"),
        Args::Optional(_, ty) => format!(" · {ty}, or nothing"),
        Args::Many(_, ty) => format!(" · one or more: {ty}"),
    }
}

fn fields(schema: &Schema) -> String {
    let list = |what: &str, names: Vec<String>| match names.as_slice() {
        [] => String::new(),
        names => format!("\n\n{what}: {}", names.join(", ")),
    };
    let props = schema.props.iter().map(|p| format!("`{}=`", p.name)).collect();
    let children = schema.children.iter().map(|c| format!("`{}`", c.name)).collect();
    format!("{}{}", list("properties", props), list("fields", children))
}

/// The words about a target: what it is, where, how it begins, what it stands on and what stands on it.
fn label(view: &View<'_>, target: &Target) -> String {
    let index = view.index();
    let mut text = format!("**{}** · {} · {}\n\n", target.label.text, target.kind, view.line(&target.whole));
    if let Some(recipe) = view.recipe(&target.whole.path) {
        let lines: Vec<&str> = recipe.text[target.whole.bytes.clone()].lines().collect();
        let more = if lines.len() > LINES_MAX { "\n    ..." } else { "" };
        text.push_str(&format!("```kdl\n{}{more}\n```\n", lines[..lines.len().min(LINES_MAX)].join("\n")));
    }
    let mut list = |what: &str, labels: BTreeSet<&str>| {
        if !labels.is_empty() {
            let labels: Vec<String> = labels.iter().map(|l| format!("`{l}`")).collect();
            text.push_str(&format!("\n{what}: {}\n", labels.join(", ")));
        }
    };
    if target.label.is_pattern() {
        list("makes", target.label.labels.iter().map(String::as_str).collect());
    }
    let of = |within: Option<usize>| within.map(|i| &index.targets[i]);
    let own = index.references.iter().filter(|r| of(r.within).is_some_and(|t| t.whole == target.whole));
    list("stands on", own.flat_map(|r| &r.label.labels).map(String::as_str).collect());
    let others = index.references.iter().filter(|r| target.label.labels.iter().any(|l| r.label.means(l)));
    list("under", others.filter_map(|r| of(r.within)).map(|t| t.label.text.as_str()).collect());
    text
}

fn markdown(view: &View<'_>, value: String, bytes: &std::ops::Range<usize>) -> Hover {
    Hover {
        contents: HoverContents::Markup(MarkupContent { kind: MarkupKind::Markdown, value }),
        range: Some(view.range(bytes)),
    }
}
