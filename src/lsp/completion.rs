//! What could stand at the cursor: kinds, fields, properties, words of a choice, labels, files.

use std::ops::Range;
use std::path::Path;

use lsp_types::{
    CompletionItem, CompletionItemKind, CompletionTextEdit, Documentation, InsertTextFormat, MarkupContent, MarkupKind,
    TextEdit,
};

use super::grammar::{self, Meaning, Sort};
use super::hover::{node, property};
use super::index::axes;
use super::place::{On, Place, Value};
use super::view::View;
use crate::plan::seen_from;
use crate::recipe::outline::Item;
use crate::recipe::schema::{Args, Count, Prop, Schema, Type};
use crate::util::fs;

/// Files of one directory that are offered.
const FILES_MAX: usize = 500;

/// Answers a completion.
pub(super) fn completion(view: &View<'_>, offset: usize) -> Vec<CompletionItem> {
    let place = Place::at(&view.recipe.outline, offset);
    match &place.on {
        On::Void => Vec::new(),
        On::Nothing => names(view, &place, None, offset..offset),
        On::Name(item) if item.name.quoted => Vec::new(),
        On::Name(item) => names(view, &place, Some(item), item.name.range.clone()),
        On::Key(item, word) => {
            let Some(meaning) = grammar::meaning(&place.path()) else { return Vec::new() };
            let range = word.key.as_ref().map_or(offset..offset, |(_, range)| range.clone());
            free_props(meaning, item).map(|prop| Offer::of_key(prop).done(view, &range)).collect()
        }
        On::Value(value) => {
            let Some(meaning) = grammar::meaning(&place.path()) else { return Vec::new() };
            values(view, &place, meaning, value, offset)
        }
    }
}

/// Names of nodes that may stand among the children of the innermost node.
fn names(view: &View<'_>, place: &Place<'_>, on: Option<&Item>, range: Range<usize>) -> Vec<CompletionItem> {
    let above = grammar::meaning(&place.inside);
    if above.is_none() && !place.inside.is_empty() {
        return Vec::new();
    }
    let siblings: Vec<&Item> = match place.inside.last() {
        Some(item) => item.children().filter(|c| on.is_none_or(|on| !std::ptr::eq(*c, on))).collect(),
        None => Vec::new(),
    };
    let in_use = |schema: &Schema| {
        !matches!(schema.count, Count::Many | Count::Some) && siblings.iter().any(|s| s.name.text == schema.name)
    };
    // What is written behind the name stays, so no more than the name is put in.
    let bare = on.is_some_and(|item| !item.words.is_empty() || item.body.is_some());
    let meanings = grammar::children(above).into_iter();
    let free = meanings.filter(|m| !matches!(m.sort, Sort::Field | Sort::Matrix) || !in_use(m.schema));
    free.map(|meaning| {
        let mut offer = Offer::of_node(meaning);
        if bare {
            offer.snippet = None;
        }
        offer.done(view, &range)
    })
    .collect()
}

/// Values for the type at the cursor; where nothing or a bare word stands, also properties.
fn values(
    view: &View<'_>,
    place: &Place<'_>,
    meaning: Meaning,
    value: &Value<'_>,
    offset: usize,
) -> Vec<CompletionItem> {
    let word = value.word;
    let is_property = word.is_some_and(|w| w.key.is_some());
    let ty = match word {
        Some(word) => meaning.word(word, value.number),
        None => meaning.argument(value.number),
    };
    let quoting = match word {
        Some(word) if word.quoted && word.closed => Quoting { range: word.inner.clone(), before: "", after: "" },
        // An open string ends where the cursor is: what follows is older text.
        Some(word) if word.quoted => Quoting { range: word.inner.start..offset, before: "", after: "\"" },
        Some(word) => Quoting { range: word.range.clone(), before: "\"", after: "\"" },
        None => Quoting { range: offset..offset, before: "\"", after: "\"" },
    };
    let quoted = word.is_some_and(|w| w.quoted);
    let mut offers = match ty {
        Some(Type::Choice(words)) => {
            quoting.offers(words.iter().map(|w| (*w).to_owned()), CompletionItemKind::ENUM_MEMBER)
        }
        Some(Type::Label | Type::NamedLabel | Type::Of(_)) => labels(view, place, &quoting),
        Some(Type::File | Type::Glob | Type::Holding(_)) => {
            let written = view.text()[quoting.range.start..offset.max(quoting.range.start)].to_owned();
            let top = place.path().first().map(|item| item.name.text.clone());
            files(view, &view.files_from(top.as_deref()), &written, &quoting)
        }
        Some(Type::Bool) if !quoted => ["#true", "#false"].map(|w| Offer::plain(w, CompletionItemKind::VALUE)).into(),
        _ => Vec::new(),
    };
    if let (true, Some(top)) = (quoted, place.path().first()) {
        let placeholders = axes(top).into_iter().map(|axis| axis.placeholder);
        if view.text()[..offset].ends_with('{') {
            let mut range = offset - 1..offset;
            range.end += usize::from(view.text()[offset..].starts_with('}'));
            return placeholders.map(|p| Offer::plain(&p, CompletionItemKind::VARIABLE).done(view, &range)).collect();
        }
    }
    if !quoted && !is_property {
        offers.extend(free_props(meaning, value.item).map(Offer::of_property));
    }
    offers.into_iter().map(|offer| offer.done(view, &quoting.range)).collect()
}

/// Properties that the node does not have yet.
fn free_props(meaning: Meaning, item: &Item) -> impl Iterator<Item = &'static Prop> {
    let given: Vec<String> = item.words.iter().filter_map(|w| w.key.as_ref().map(|(name, _)| name.clone())).collect();
    meaning.schema.props.iter().filter(move |p| !given.iter().any(|g| g == p.name))
}

/// Every label but that of the declaration the cursor is in.
fn labels(view: &View<'_>, place: &Place<'_>, quoting: &Quoting) -> Vec<Offer> {
    let own = place.path().first().map(|item| item.range.clone());
    let is_own = |whole: &super::project::Place| whole.path == view.path && Some(&whole.bytes) == own.as_ref();
    let mut offers = Vec::new();
    for target in view.index().targets.iter().filter(|t| !is_own(&t.whole)) {
        let labels = target.label.labels.iter().map(|label| seen_from(view.base(), label));
        for mut offer in quoting.offers(labels, CompletionItemKind::REFERENCE) {
            offer.detail = Some(target.kind.to_owned());
            offers.push(offer);
        }
    }
    offers
}

/// The entries of the directory that is written so far.
fn files(view: &View<'_>, from: &Path, written: &str, quoting: &Quoting) -> Vec<Offer> {
    let above = written.rfind('/').map_or("", |slash| &written[..=slash]);
    if above.split('/').any(|part| part == "..") || above.starts_with('/') {
        return Vec::new();
    }
    let Ok(entries) = fs::entries(&view.project.root.join(from).join(above)) else { return Vec::new() };
    let mut offers = Vec::new();
    for (name, is_dir) in entries.into_iter().take(FILES_MAX) {
        let own = above.is_empty() && matches!(name.as_str(), "out" | "target");
        if name.starts_with('.') || own {
            continue;
        }
        let path = format!("{above}{name}{}", if is_dir { "/" } else { "" });
        let kind = if is_dir { CompletionItemKind::FOLDER } else { CompletionItemKind::FILE };
        offers.extend(quoting.offers([path], kind));
    }
    offers
}

/// How a value is put in where one stands already, or a part of one.
struct Quoting {
    range: Range<usize>,
    before: &'static str,
    after: &'static str,
}

impl Quoting {
    fn offers(&self, texts: impl IntoIterator<Item = String>, kind: CompletionItemKind) -> Vec<Offer> {
        let quoted = |text: &str| format!("{}{text}{}", self.before, self.after);
        texts.into_iter().map(|text| Offer { insert: quoted(&text), ..Offer::plain(&text, kind) }).collect()
    }
}

/// One thing that could stand at the cursor.
struct Offer {
    label: String,
    insert: String,
    /// With places to fill in, for editors that know them.
    snippet: Option<String>,
    kind: CompletionItemKind,
    detail: Option<String>,
    doc: Option<String>,
}

impl Offer {
    fn plain(text: &str, kind: CompletionItemKind) -> Self {
        Self { label: text.into(), insert: text.into(), snippet: None, kind, detail: None, doc: None }
    }

    fn of_node(meaning: Meaning) -> Self {
        let schema = meaning.schema;
        let (kind, snippet) = match meaning.sort {
            Sort::Target => (CompletionItemKind::CLASS, Snippet::default().target(schema)),
            Sort::Matrix => (CompletionItemKind::KEYWORD, "matrix { $0; }".into()),
            Sort::Profile(_) => (CompletionItemKind::KEYWORD, "profile \"$1\" { $0; }".into()),
            Sort::Setting => (CompletionItemKind::KEYWORD, Snippet::default().field(schema)),
            _ => (CompletionItemKind::FIELD, Snippet::default().field(schema)),
        };
        let detail = match (meaning.sort, schema.args) {
            (Sort::Target, _) => Some("kind".into()),
            (_, Args::One(_, ty) | Args::Optional(_, ty) | Args::Many(_, ty)) => Some(ty.to_string()),
            _ => None,
        };
        let doc = Some(node(meaning, schema.name));
        Self { snippet: Some(snippet), detail, doc, ..Self::plain(schema.name, kind) }
    }

    /// A property with its `=`.
    fn of_property(prop: &'static Prop) -> Self {
        let mut offer = Self::of_key(prop);
        offer.insert = format!("{}=", prop.name);
        offer.snippet = Some(format!("{}={}$0", prop.name, Snippet::default().value(prop.ty)));
        offer
    }

    /// A property's name alone.
    fn of_key(prop: &'static Prop) -> Self {
        let offer = Self::plain(prop.name, CompletionItemKind::PROPERTY);
        Self { detail: Some(prop.ty.to_string()), doc: Some(property(prop)), ..offer }
    }

    fn done(self, view: &View<'_>, range: &Range<usize>) -> CompletionItem {
        let snippet = self.snippet.filter(|_| view.snippets);
        let format = snippet.as_ref().map(|_| InsertTextFormat::SNIPPET);
        let edit = TextEdit::new(view.range(range), snippet.unwrap_or(self.insert));
        let markdown = |value| Documentation::MarkupContent(MarkupContent { kind: MarkupKind::Markdown, value });
        CompletionItem {
            label: self.label,
            kind: Some(self.kind),
            detail: self.detail,
            documentation: self.doc.map(markdown),
            insert_text_format: format,
            text_edit: Some(CompletionTextEdit::Edit(edit)),
            ..CompletionItem::default()
        }
    }
}

/// A text with numbered places to fill in.
#[derive(Default)]
struct Snippet {
    places: usize,
}

impl Snippet {
    /// A declaration with the fields it must have.
    fn target(&mut self, kind: &Schema) -> String {
        let head = format!("{} {}", kind.name, self.value(Type::Label));
        let required = kind.children.iter().filter(|c| matches!(c.count, Count::Required | Count::Some));
        let fields: Vec<String> = required.map(|c| format!("    {}\n", self.field(c))).collect();
        format!("{head} {{\n{}    $0\n}}", fields.concat())
    }

    /// A field with what it must have.
    fn field(&mut self, schema: &Schema) -> String {
        let mut text = schema.name.to_owned();
        if let Args::One(_, ty) | Args::Many(_, ty) = schema.args {
            text.push_str(&format!(" {}", self.value(ty)));
        }
        for prop in schema.props.iter().filter(|p| p.required) {
            text.push_str(&format!(" {}={}", prop.name, self.value(prop.ty)));
        }
        let required = schema.children.iter().filter(|c| matches!(c.count, Count::Required | Count::Some));
        let fields: Vec<String> = required.map(|c| format!("{}; ", self.field(c))).collect();
        if !fields.is_empty() {
            text.push_str(&format!(" {{ {}}}", fields.concat()));
        }
        text
    }

    /// A place for a value of the type.
    fn value(&mut self, ty: Type) -> String {
        self.places += 1;
        let place = self.places;
        match ty {
            Type::Int(..) | Type::Float(..) | Type::FloatAbove(..) => format!("${place}"),
            Type::Bool => format!("#${{{place}:true}}"),
            _ => format!("\"${place}\""),
        }
    }
}
