//! Every value of a checked declaration that may change its bytes, with its type: what facts, references and inputs are
//! read from.

use serde_json::Value;

use super::schema::{Args, Count, Schema, Type};

/// One value of a declaration.
pub struct Visit<'a> {
    /// Dotted path in the JSON, as in [`super::decl::Decl::span`].
    pub path: String,
    /// The same without the names of flat nodes: what the manifest calls it.
    pub fact: String,
    /// Its type.
    pub ty: Type,
    /// The value.
    pub value: &'a Value,
}

/// Visits every value in the order of the schema, but for those that are no facts.
pub fn walk<'a>(schema: &Schema, fields: &'a Value, visit: &mut dyn FnMut(Visit<'a>)) {
    object(schema, fields, "", Names { own: String::new(), prefix: String::new() }, visit);
}

/// What the manifest calls a node's own argument, and what it puts before the names of its fields.
struct Names {
    own: String,
    prefix: String,
}

fn object<'a>(schema: &Schema, value: &'a Value, path: &str, names: Names, visit: &mut dyn FnMut(Visit<'a>)) {
    match schema.args {
        Args::None => {}
        // A node's own argument is told by the node's name: `train`, not `train.data`.
        Args::One(name, ty) | Args::Optional(name, ty) => {
            scalar(&value[name], ty, join(path, name), names.own.clone(), visit);
        }
        Args::Many(name, ty) => many(&value[name], ty, &join(path, name), &names.own, visit),
    }
    for prop in schema.props {
        scalar(&value[prop.name], prop.ty, join(path, prop.name), join(&names.prefix, prop.name), visit);
    }
    for child in schema.children.iter().filter(|child| !child.beside) {
        let path = join(path, child.name);
        let own = join(&names.prefix, child.name);
        let repeated = matches!(child.count, Count::Many | Count::Some);
        match &value[child.name] {
            Value::Null => {}
            Value::Array(items) if repeated => {
                for (i, item) in items.iter().enumerate() {
                    node(child, item, &format!("{path}.{i}"), format!("{own}.{i}"), &names.prefix, visit);
                }
            }
            value => node(child, value, &path, own, &names.prefix, visit),
        }
    }
    if let (Some(ty), Value::Object(columns)) = (schema.open, &value["columns"]) {
        for (name, value) in columns {
            scalar(value, ty, join(path, &format!("columns.{name}")), join(&names.prefix, name), visit);
        }
    }
}

fn node<'a>(schema: &Schema, value: &'a Value, path: &str, own: String, above: &str, visit: &mut dyn FnMut(Visit<'a>)) {
    if !schema.is_leaf() {
        let prefix = if schema.flat { above.to_owned() } else { own.clone() };
        return object(schema, value, path, Names { own, prefix }, visit);
    }
    match schema.args {
        Args::None => scalar(value, Type::Bool, path.to_owned(), own, visit),
        Args::One(_, ty) | Args::Optional(_, ty) => scalar(value, ty, path.to_owned(), own, visit),
        Args::Many(_, ty) => many(value, ty, path, &own, visit),
    }
}

fn many<'a>(value: &'a Value, ty: Type, path: &str, fact: &str, visit: &mut dyn FnMut(Visit<'a>)) {
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        scalar(item, ty, format!("{path}.{i}"), format!("{fact}.{i}"), visit);
    }
}

fn scalar<'a>(value: &'a Value, ty: Type, path: String, fact: String, visit: &mut dyn FnMut(Visit<'a>)) {
    if !value.is_null() {
        visit(Visit { path, fact, ty, value });
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
