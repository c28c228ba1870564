//! A recipe's text as a light tree with places: what of KDL the rest of effai needs.
//!
//! Parsing KDL is slow (measured: 0.25 MB/s with kdl 6.7), so this tree, not kdl's, is what is cached.

use serde::{Deserialize, Serialize};

/// A place in one of the project's recipes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which of [`super::source::Sources`].
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// `#null`
    Null,
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The property's name; none for an argument.
    pub name: Option<String>,
    /// The value.
    pub value: Scalar,
    /// Where.
    pub span: Span,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub name_span: Span,
    /// Arguments and properties, in order.
    pub entries: Vec<Entry>,
    /// Children, in order.
    pub children: Vec<Node>,
}

impl Node {
    /// The arguments, in order.
    pub fn args(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|e| e.name.is_none())
    }

    /// The properties, in order.
    pub fn props(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().filter_map(|e| e.name.as_deref().map(|name| (name, e)))
    }

    /// The first argument, if it is text.
    pub fn text(&self) -> Option<&str> {
        match self.args().next() {
            Some(Entry { value: Scalar::Text(text), .. }) => Some(text),
            _ => None,
        }
    }
}

impl Scalar {
    /// What it is, for messages.
    pub fn describe(&self) -> String {
        match self {
            Scalar::Text(text) => format!("the text \"{text}\""),
            Scalar::Int(n) => format!("the number {n}"),
            Scalar::Float(x) => format!("the number {x}"),
            Scalar::Bool(b) => format!("#{b}"),
            Scalar::Null => "#null".into(),
        }
    }
}
