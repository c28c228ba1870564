//! What may stand in a recipe, told from the schemas: JSON for programs, tables for `docs/` and the terminal.

use serde_json::{Value, json};

use crate::kind::KINDS;
use crate::recipe::grammar::{OF_EVERY_TARGET, SETTINGS};
use crate::recipe::schema::{Args, Count, Default, Prop, Schema, Type};

/// Everything, or one node at the top, by name.
pub fn to_json(name: Option<&str>) -> Option<Value> {
    let all = |schemas: &mut dyn Iterator<Item = &'static Schema>| -> Vec<Value> {
        schemas.filter(|s| name.is_none_or(|n| n == s.name)).map(node).collect()
    };
    let kinds = all(&mut KINDS.iter().map(|k| k.schema()));
    let settings = all(&mut SETTINGS.iter());
    let every = all(&mut OF_EVERY_TARGET.iter().copied());
    let found = !kinds.is_empty() || !settings.is_empty() || !every.is_empty();
    found.then(|| json!({ "version": 1, "kinds": kinds, "settings": settings, "every-target": every }))
}

/// The node at the top of a recipe, or in every target, of this name.
pub fn find(name: &str) -> Option<&'static Schema> {
    let kinds = KINDS.iter().map(|k| k.schema());
    kinds.chain(SETTINGS.iter()).chain(OF_EVERY_TARGET).find(|s| s.name == name)
}

/// The names that [`find`] knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    let kinds = KINDS.iter().map(|k| k.schema());
    kinds.chain(SETTINGS.iter()).chain(OF_EVERY_TARGET).map(|s| s.name)
}

/// The fields of a node as a Markdown table.
pub fn table(schema: &Schema) -> String {
    let mut rows = String::from("| field | value | default | meaning |\n|---|---|---|---|\n");
    props(schema, "", &mut rows);
    fields(schema, "", &mut rows);
    rows
}

/// Nodes as a Markdown table, each with its properties.
pub fn table_of(schemas: &[&Schema]) -> String {
    let mut rows = String::from("| node | value | default | meaning |\n|---|---|---|---|\n");
    schemas.iter().for_each(|schema| field(schema, "", &mut rows));
    rows
}

fn fields(schema: &Schema, above: &str, rows: &mut String) {
    schema.children.iter().for_each(|child| field(child, above, rows));
    if let Some(ty) = schema.open {
        row(&format!("{above}NAME"), &ty.to_string(), "", "a name of your own and its value", rows);
    }
}

fn field(schema: &Schema, above: &str, rows: &mut String) {
    let value = match schema.args {
        Args::None if schema.is_leaf() => "nothing".into(),
        Args::None => String::new(),
        Args::One(_, ty) => ty.to_string(),
        Args::Optional(_, ty) => format!("{ty}, or nothing"),
        Args::Many(_, ty) => format!("one or more: {ty}"),
    };
    let often = match (schema.count, schema.default) {
        (_, Some(default)) => code(default),
        (Count::Required, None) => "required".into(),
        (Count::Some, None) => "required, may be repeated".into(),
        (Count::Many, None) => "may be repeated".into(),
        (Count::Optional, None) => String::new(),
    };
    row(&format!("{above}{}", schema.name), &value, &often, schema.doc, rows);
    let below = format!("{above}{} ", schema.name);
    props(schema, &below, rows);
    fields(schema, &below, rows);
}

fn props(schema: &Schema, above: &str, rows: &mut String) {
    for prop in schema.props {
        let default = match (prop.default, prop.required) {
            (Some(default), _) => code(default),
            (None, true) => "required".into(),
            (None, false) => String::new(),
        };
        row(&format!("{above}{}=", prop.name), &prop.ty.to_string(), &default, prop.doc, rows);
    }
}

fn row(name: &str, value: &str, default: &str, doc: &str, rows: &mut String) {
    let doc = upper_first(doc.trim_end_matches('.')).replace('|', "\\|");
    rows.push_str(&format!("| `{name}` | {} | {default} | {doc} |\n", value.replace('|', "\\|")));
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// As it is written in a recipe.
fn code(default: Default) -> String {
    match default {
        Default::Bool(b) => format!("`#{b}`"),
        other => format!("`{}`", other.to_json()),
    }
}

fn node(schema: &Schema) -> Value {
    let arguments = match schema.args {
        Args::None => Value::Null,
        Args::One(name, ty) => json!({ "name": name, "type": of_type(ty), "least": 1, "most": 1 }),
        Args::Optional(name, ty) => json!({ "name": name, "type": of_type(ty), "least": 0, "most": 1 }),
        Args::Many(name, ty) => json!({ "name": name, "type": of_type(ty), "least": 1, "most": null }),
    };
    let count = match schema.count {
        Count::Optional => "optional",
        Count::Required => "required",
        Count::Many => "many",
        Count::Some => "some",
    };
    json!({
        "name": schema.name, "doc": schema.doc, "count": count, "arguments": arguments,
        "properties": schema.props.iter().map(property).collect::<Vec<_>>(),
        "fields": schema.children.iter().map(node).collect::<Vec<_>>(),
        "open": schema.open.map(of_type), "default": schema.default.map(Default::to_json),
    })
}

fn property(prop: &Prop) -> Value {
    json!({
        "name": prop.name, "doc": prop.doc, "type": of_type(prop.ty), "required": prop.required,
        "default": prop.default.map(Default::to_json),
    })
}

/// A bound that is none is null.
fn of_type(ty: Type) -> Value {
    let whole = |n: i64| (n != i64::MAX).then_some(n);
    let number = |x: f64| x.is_finite().then_some(x);
    match ty {
        Type::Text => json!({ "is": "text" }),
        Type::Int(low, high) => json!({ "is": "whole-number", "least": low, "most": whole(high) }),
        Type::Float(low, high) => json!({ "is": "number", "least": low, "most": number(high) }),
        Type::FloatAbove(low, high) => json!({ "is": "number", "above": low, "most": number(high) }),
        Type::Bool => json!({ "is": "bool" }),
        Type::Value => json!({ "is": "value" }),
        Type::Choice(words) => json!({ "is": "choice", "words": words }),
        Type::Label => json!({ "is": "label" }),
        Type::NamedLabel => json!({ "is": "label", "named": true }),
        Type::Of(kind) => json!({ "is": "label", "kind": kind }),
        Type::File => json!({ "is": "file" }),
        Type::Glob => json!({ "is": "glob" }),
        Type::Size => json!({ "is": "size" }),
        Type::Span => json!({ "is": "span" }),
        Type::Sha256 => json!({ "is": "sha256" }),
        Type::Variable => json!({ "is": "variable" }),
        Type::Tool => json!({ "is": "program" }),
        Type::Holding(files) => {
            json!({ "is": "directory", "holds": files.iter().map(|(name, _)| name).collect::<Vec<_>>() })
        }
        Type::Python(_) => json!({ "is": "python-version" }),
        Type::AtRevision => json!({ "is": "label", "at": "revision" }),
    }
}
