//! A node against its kind's schema: every mistake found, defaults filled in, JSON made.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::mistake::{Mistake, nearest};
use super::node::{Entry, Node, Scalar, Span};
use super::schema::{Args, Count, Default, Prop, Schema, Type};
use super::source::Sources;
use crate::plan::{Label, at_revision, complaint_of_revision, resolve, seen_from};
use crate::util::text::{parse_bytes, parse_seconds};

/// The fields of a node that fits its schema, and where each stands.
#[derive(Debug, Default)]
pub struct Checked {
    /// In the shape that [`super::schema`] describes.
    pub fields: Value,
    /// Dotted path -> place.
    pub spans: BTreeMap<String, Span>,
}

/// Checks the fields of a target's node. The first argument is its label and is not looked at here.
/// `base` is the directory of its project.
pub fn check(schema: &Schema, node: &Node, base: &str, sources: &Sources, mistakes: &mut Vec<Mistake>) -> Checked {
    let mut checker = Checker { sources, mistakes, spans: BTreeMap::new(), kind: schema.name, base };
    checker.spans.insert(String::new(), node.args().next().map_or(node.name_span, |e| e.span));
    let mut label_passed = false;
    let entries: Vec<&Entry> =
        node.entries.iter().filter(|e| e.name.is_some() || std::mem::replace(&mut label_passed, true)).collect();
    let fields = checker.object(schema, node, &entries, "");
    Checked { fields, spans: checker.spans }
}

/// Fills the defaults of fields made by a kind and not by a recipe.
pub fn fill_defaults(schema: &Schema, fields: &mut Value) {
    let Value::Object(map) = fields else { return };
    for prop in schema.props {
        if let (Some(default), false) = (prop.default, map.contains_key(prop.name)) {
            map.insert(prop.name.into(), default.to_json());
        }
    }
    for child in schema.children {
        match map.get_mut(child.name) {
            None => {
                if let Some(default) = child.default {
                    map.insert(child.name.into(), default.to_json());
                } else if matches!(child.count, Count::Many) {
                    map.insert(child.name.into(), json!([]));
                }
            }
            Some(Value::Array(items)) => items.iter_mut().for_each(|item| fill_defaults(child, item)),
            Some(value) => fill_defaults(child, value),
        }
    }
}

struct Checker<'a> {
    sources: &'a Sources,
    mistakes: &'a mut Vec<Mistake>,
    spans: BTreeMap<String, Span>,
    kind: &'static str,
    base: &'a str,
}

impl Checker<'_> {
    fn object(&mut self, schema: &Schema, node: &Node, entries: &[&Entry], path: &str) -> Value {
        let mut map = Map::new();
        self.args(schema, node, entries, path, &mut map);
        self.props(schema, node, entries, path, &mut map);
        self.children(schema, node, path, &mut map);
        Value::Object(map)
    }

    fn args(&mut self, schema: &Schema, node: &Node, entries: &[&Entry], path: &str, map: &mut Map<String, Value>) {
        let args: Vec<&&Entry> = entries.iter().filter(|e| e.name.is_none()).collect();
        let (name, ty, least, most) = match schema.args {
            Args::None => ("", Type::Text, 0, 0),
            Args::One(name, ty) => (name, ty, 1, 1),
            Args::Optional(name, ty) => (name, ty, 0, 1),
            Args::Many(name, ty) => (name, ty, 1, usize::MAX),
        };
        if args.len() < least {
            let mistake = Mistake::new("recipe::missing_value", format!("`{}` needs {ty}", node.name)).mark(
                self.sources,
                node.name_span,
                "a value belongs here",
            );
            self.mistakes.push(mistake);
        }
        if let Some(extra) = args.get(most) {
            let message = if most == 0 {
                format!("`{}` takes no value", node.name)
            } else {
                format!("`{}` takes one value", node.name)
            };
            let mistake = Mistake::new("recipe::extra_value", message).mark(self.sources, extra.span, "one too many");
            self.mistakes.push(mistake);
            return;
        }
        if matches!(schema.args, Args::Many(..)) {
            let values = args
                .iter()
                .enumerate()
                .map(|(i, e)| self.value(e, ty, &node.name, &join(path, &format!("{name}.{i}"))))
                .collect();
            map.insert(name.into(), Value::Array(values));
        } else if let Some(entry) = args.first() {
            let value = self.value(entry, ty, &node.name, &join(path, name));
            map.insert(name.into(), value);
        }
    }

    fn props(&mut self, schema: &Schema, node: &Node, entries: &[&Entry], path: &str, map: &mut Map<String, Value>) {
        for entry in entries {
            let Some(name) = entry.name.as_deref() else { continue };
            let Some(prop) = schema.props.iter().find(|p| p.name == name) else {
                let known: Vec<&str> = schema.props.iter().map(|p| p.name).collect();
                self.unknown(node, name, entry.span, &known, "property");
                continue;
            };
            let value = self.value(entry, prop.ty, name, &join(path, name));
            if map.insert(name.into(), value).is_some() {
                let mistake = Mistake::new("recipe::twice", format!("`{name}` is given twice")).mark(
                    self.sources,
                    entry.span,
                    "again here",
                );
                self.mistakes.push(mistake);
            }
        }
        for Prop { name, default, required, ty, .. } in schema.props {
            if map.contains_key(*name) {
                continue;
            }
            if let Some(default) = default {
                map.insert((*name).into(), default.to_json());
            } else if *required {
                let mistake = Mistake::new("recipe::missing_field", format!("`{}` needs `{name}`", node.name))
                    .mark(self.sources, node.name_span, format!("give it {name}=..."))
                    .help(format!("`{name}` is {ty}"));
                self.mistakes.push(mistake);
            }
        }
    }

    fn children(&mut self, schema: &Schema, node: &Node, path: &str, map: &mut Map<String, Value>) {
        let mut columns = Map::new();
        let mut first_of: BTreeMap<&str, Span> = BTreeMap::new();
        for child in &node.children {
            let Some(field) = schema.children.iter().find(|c| c.name == child.name) else {
                match schema.open {
                    Some(ty) => {
                        let path = join(path, &format!("columns.{}", child.name));
                        let args = if ty == Type::Value { Args::Many("values", ty) } else { Args::One("value", ty) };
                        let leaf = Schema { args, ..Schema::new("", "") };
                        let value = match self.field(&leaf, child, &path) {
                            Value::Array(mut values) if values.len() == 1 => values.remove(0),
                            value => value,
                        };
                        columns.insert(child.name.clone(), value);
                    }
                    None => {
                        let known: Vec<&str> = schema.children.iter().map(|c| c.name).collect();
                        self.unknown(node, &child.name, child.name_span, &known, "field");
                    }
                }
                continue;
            };
            let repeated = matches!(field.count, Count::Many | Count::Some);
            if repeated {
                let i = map.get(field.name).and_then(Value::as_array).map_or(0, Vec::len);
                let value = self.field(field, child, &join(path, &format!("{}.{i}", field.name)));
                match map.entry(field.name).or_insert_with(|| json!([])) {
                    Value::Array(items) => items.push(value),
                    _ => unreachable!("a repeated field is an array"),
                }
                continue;
            }
            if let Some(first) = first_of.insert(field.name, child.name_span) {
                let mistake = Mistake::new("recipe::twice", format!("`{}` is given twice", field.name))
                    .mark(self.sources, child.name_span, "again here")
                    .mark(self.sources, first, "first here");
                self.mistakes.push(mistake);
                continue;
            }
            let value = self.field(field, child, &join(path, field.name));
            map.insert(field.name.into(), value);
        }
        if schema.open.is_some() {
            map.insert("columns".into(), Value::Object(columns));
        }
        for field in schema.children {
            if map.contains_key(field.name) {
                continue;
            }
            match (field.count, field.default) {
                (_, Some(default)) => drop(map.insert(field.name.into(), default.to_json())),
                (Count::Many, None) => drop(map.insert(field.name.into(), json!([]))),
                // A field that was misspelt is reported as that, once.
                (Count::Required | Count::Some, None) if misspelt(schema, node, field.name) => {}
                (Count::Required | Count::Some, None) => {
                    let mistake =
                        Mistake::new("recipe::missing_field", format!("`{}` needs `{}`", node.name, field.name))
                            .mark(self.sources, node.name_span, format!("has no `{}`", field.name))
                            .help(first_sentence(field.doc));
                    self.mistakes.push(mistake);
                }
                (Count::Optional, None) => {}
            }
        }
    }

    /// One child: a bare value, an array, `true`, or an object.
    fn field(&mut self, schema: &Schema, node: &Node, path: &str) -> Value {
        self.spans.insert(path.to_owned(), node.args().next().map_or(node.name_span, |e| e.span));
        let entries: Vec<&Entry> = node.entries.iter().collect();
        let object = self.object(schema, node, &entries, path);
        if !schema.is_leaf() {
            return object;
        }
        let Value::Object(mut map) = object else { unreachable!("just made") };
        match schema.args {
            Args::None => Value::Bool(true),
            Args::One(name, _) | Args::Optional(name, _) | Args::Many(name, _) => {
                map.remove(name).unwrap_or(Value::Null)
            }
        }
    }

    fn value(&mut self, entry: &Entry, ty: Type, field: &str, path: &str) -> Value {
        self.spans.insert(path.to_owned(), entry.span);
        match convert(&entry.value, ty, self.base) {
            Ok(value) => value,
            Err(complaint) => {
                let found = entry.value.describe();
                let mut mistake = Mistake::new("recipe::wrong_value", format!("`{field}` is {ty}, not {found}")).mark(
                    self.sources,
                    entry.span,
                    complaint,
                );
                if let (Type::Choice(words), Scalar::Text(text)) = (ty, &entry.value)
                    && let Some(near) = nearest(text, words.iter().copied())
                {
                    mistake = mistake.help(format!("did you mean \"{near}\"?"));
                }
                self.mistakes.push(mistake);
                Value::Null
            }
        }
    }

    fn unknown(&mut self, node: &Node, found: &str, at: Span, known: &[&str], sort: &str) {
        let help = match nearest(found, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => format!("`{}` has none", node.name),
            None => format!("there are: {}", known.join(", ")),
        };
        let whose = if node.name == self.kind { format!("kind `{}`", node.name) } else { format!("`{}`", node.name) };
        let mistake = Mistake::new("recipe::unknown_field", format!("{whose} has no {sort} `{found}`"))
            .mark(self.sources, at, format!("no such {sort}"))
            .mark(self.sources, node.name_span, "of this")
            .help(help);
        self.mistakes.push(mistake);
    }
}

/// Whether the node has an unknown child whose nearest known name is this one.
fn misspelt(schema: &Schema, node: &Node, name: &str) -> bool {
    let known = || schema.children.iter().map(|c| c.name);
    let unknown = node.children.iter().filter(|c| known().all(|k| k != c.name));
    unknown.into_iter().any(|c| nearest(&c.name, known()) == Some(name))
}

fn convert(value: &Scalar, ty: Type, base: &str) -> Result<Value, String> {
    match (ty, value) {
        (Type::Text | Type::Tool, Scalar::Text(text)) => Ok(json!(text)),
        (Type::Label | Type::NamedLabel | Type::Of(_), Scalar::Text(text)) => {
            let (label, rev) = at_revision(text).map_or((&**text, None), |(label, rev)| (label, Some(rev)));
            let complaint = Label::complaint(label.strip_prefix('/').unwrap_or(label));
            match complaint.or_else(|| rev.and_then(complaint_of_revision)) {
                // One way to say it, whichever was written.
                None => Ok(json!(seen_from(base, &resolve(base, text)))),
                Some(complaint) => Err(complaint),
            }
        }
        (Type::File | Type::Glob | Type::Holding(_), Scalar::Text(text)) => {
            let outside =
                text.starts_with(['/', '~']) || text.contains('\0') || text.split('/').any(|part| part == "..");
            if outside || text.is_empty() { Err("a path below the project's root".into()) } else { Ok(json!(text)) }
        }
        (Type::Python(_), Scalar::Text(text)) => {
            let is_number = |part: &str| part.len() < 6 && part.parse::<u32>().is_ok();
            let is_version = text.split('.').count() <= 3 && text.split('.').all(is_number);
            if is_version { Ok(json!(text)) } else { Err("a version such as \"3.11\" or \"3.11.7\"".into()) }
        }
        // 3.10 would be 3.1.
        (Type::Python(_), Scalar::Int(_) | Scalar::Float(_)) => Err("in quotes, such as \"3.11\"".into()),
        (Type::Variable, Scalar::Text(text)) => {
            let name = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !text.is_empty();
            if text.starts_with("EFFAI_") {
                Err("effai's own variables are not handed through".into())
            } else if !name || text.starts_with(|c: char| c.is_ascii_digit()) {
                Err("a variable has letters, digits and _".into())
            } else {
                Ok(json!(text))
            }
        }
        (Type::Sha256, Scalar::Text(text)) => {
            if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                Ok(json!(text.to_ascii_lowercase()))
            } else {
                Err(format!("{} characters, not 64 hexadecimal digits", text.chars().count()))
            }
        }
        (Type::Size, Scalar::Text(text)) => match parse_bytes(text) {
            Ok(0) => Err("more than nothing".into()),
            Ok(bytes) => Ok(json!(bytes)),
            Err(complaint) => Err(complaint),
        },
        (Type::Span, Scalar::Text(text)) => parse_seconds(text).map(|seconds| json!(seconds)),
        (Type::Size | Type::Span, Scalar::Int(_) | Scalar::Float(_)) => Err("in quotes, with its unit".into()),
        (Type::Choice(words), Scalar::Text(text)) => {
            if words.contains(&text.as_str()) {
                Ok(json!(text))
            } else {
                Err("not one of them".into())
            }
        }
        (Type::Bool | Type::Value, Scalar::Bool(b)) => Ok(json!(b)),
        (Type::Value, Scalar::Text(text)) => Ok(json!(text)),
        (Type::Value, Scalar::Int(n)) => Ok(json!(n)),
        (Type::Value, Scalar::Float(x)) if x.is_finite() => Ok(json!(x)),
        (Type::Bool, Scalar::Text(text)) if text == "true" || text == "false" => {
            Err(format!("in KDL it is written #{text}"))
        }
        (Type::Int(low, high), Scalar::Int(n)) => in_range(*n, low, high).map(|n| json!(n)),
        // 1e3 is a whole number to people, if not to KDL.
        (Type::Int(low, high), Scalar::Float(x)) if x.fract() == 0.0 && x.abs() < 9e15 => {
            in_range(*x as i64, low, high).map(|n| json!(n))
        }
        (Type::Float(low, high), Scalar::Float(_) | Scalar::Int(_)) => {
            let x = number(value);
            if x >= low && x <= high { Ok(json!(x)) } else { Err("out of range".into()) }
        }
        (Type::FloatAbove(low, high), Scalar::Float(_) | Scalar::Int(_)) => {
            let x = number(value);
            if x > low && x <= high { Ok(json!(x)) } else { Err("out of range".into()) }
        }
        _ => Err("of the wrong type".into()),
    }
}

fn in_range(n: i64, low: i64, high: i64) -> Result<i64, String> {
    if (low..=high).contains(&n) { Ok(n) } else { Err("out of range".into()) }
}

fn number(value: &Scalar) -> f64 {
    match value {
        Scalar::Int(n) => *n as f64,
        Scalar::Float(x) => *x,
        _ => f64::NAN,
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn first_sentence(doc: &str) -> String {
    doc.split_once(". ").map_or(doc, |(first, _)| first).trim_end_matches('.').to_owned()
}

impl Default {
    /// As JSON.
    pub fn to_json(self) -> Value {
        match self {
            Default::Text(text) => json!(text),
            Default::Int(n) => json!(n),
            Default::Float(x) => json!(x),
            Default::Bool(b) => json!(b),
        }
    }
}
