//! What a declaration becomes before it is checked: profiles laid over it, matrices multiplied out.
//!
//! `profile "quick" { train { epochs 2 } }` inside a declaration changes it when that profile is asked
//! for. A child of the profile is laid over the child of the same name (and the same first value, where
//! several have that name): its properties and children replace theirs one by one, its values replace
//! theirs if it has any. A child without a counterpart is added.
//!
//! `matrix { bits 8 4 }` makes one target for each combination; `{bits}` in the label and in any text of
//! the declaration is replaced. A text that is nothing but the placeholder takes the value with its type.

use super::mistake::Mistake;
use super::node::{Entry, Node, Scalar};
use super::source::Sources;

/// What one matrix may make: a slip of the pen should not fill the memory.
const TARGETS_MAX: usize = 100_000;

/// The profiles a declaration knows.
pub fn profiles(node: &Node) -> impl Iterator<Item = &str> {
    node.children.iter().filter(|c| c.name == "profile").filter_map(Node::text)
}

/// Lays the profile over the declaration, if it has one of that name; removes all its profiles.
pub fn lay_profile(node: &mut Node, profile: Option<&str>) {
    let overlays: Vec<Node> = node.children.extract_if(.., |c| c.name == "profile").collect();
    for overlay in overlays {
        if profile.is_some() && overlay.text() == profile {
            overlay.children.into_iter().for_each(|child| lay(&mut node.children, child));
        }
    }
}

fn lay(onto: &mut Vec<Node>, over: Node) {
    let same_name = onto.iter().filter(|c| c.name == over.name).count();
    let under = onto.iter_mut().find(|c| {
        c.name == over.name
            && (same_name == 1 || over.args().next().map(|e| &e.value) == c.args().next().map(|e| &e.value))
    });
    let Some(under) = under else {
        onto.push(over);
        return;
    };
    if over.args().next().is_some() {
        under.entries.retain(|e| e.name.is_some());
    }
    for entry in over.entries {
        match entry.name.is_some().then(|| under.entries.iter_mut().find(|e| e.name == entry.name)).flatten() {
            Some(old) => *old = entry,
            None => under.entries.push(entry),
        }
    }
    for child in over.children {
        lay(&mut under.children, child);
    }
}

/// One declaration for each combination of its matrix, in the order of the text.
pub fn multiply(mut node: Node, sources: &Sources, mistakes: &mut Vec<Mistake>) -> Vec<Node> {
    let Some(at) = node.children.iter().position(|c| c.name == "matrix") else { return vec![node] };
    let matrix = node.children.remove(at);
    let before = mistakes.len();
    for axis in &matrix.children {
        let placeholder = format!("{{{}}}", axis.name);
        let label_has_it = node.text().is_some_and(|label| label.contains(&placeholder));
        if axis.args().next().is_none() {
            mistakes.push(Mistake::new("recipe::matrix", format!("the matrix gives `{}` no values", axis.name)).mark(
                sources,
                axis.name_span,
                "no values",
            ));
        } else if !label_has_it {
            mistakes.push(
                Mistake::new(
                    "recipe::matrix",
                    format!("the label does not hold {placeholder}, so its targets would share a name"),
                )
                .mark(sources, node.entries.first().map_or(node.name_span, |e| e.span), "one label for several targets")
                .mark(sources, axis.name_span, "declared here")
                .help(format!("put {placeholder} into the label")),
            );
        }
    }
    let all = matrix.children.iter().map(|axis| axis.args().count()).fold(1, usize::saturating_mul);
    if all > TARGETS_MAX {
        let message = format!("the matrix makes {all} targets, more than {TARGETS_MAX}");
        let mistake = Mistake::new("recipe::matrix", message).mark(sources, matrix.name_span, "too many combinations");
        mistakes.push(mistake.help("take values away, or split the declaration"));
        return Vec::new();
    }
    if mistakes.len() > before {
        // Targets of one label would be told as a second mistake.
        return vec![node];
    }
    let mut nodes = vec![node];
    for axis in &matrix.children {
        let values: Vec<&Scalar> = axis.args().map(|e| &e.value).collect();
        nodes = nodes
            .into_iter()
            .flat_map(|node| {
                values.iter().map(move |value| {
                    let mut copy = node.clone();
                    substitute(&mut copy, &axis.name, value);
                    copy
                })
            })
            .collect();
    }
    nodes
}

fn substitute(node: &mut Node, name: &str, value: &Scalar) {
    let placeholder = format!("{{{name}}}");
    let as_text = match value {
        Scalar::Text(text) => text.clone(),
        Scalar::Int(n) => n.to_string(),
        Scalar::Float(x) => x.to_string(),
        Scalar::Bool(b) => b.to_string(),
        Scalar::Null => "null".into(),
    };
    let replace = |entry: &mut Entry| {
        if let Scalar::Text(text) = &mut entry.value {
            if *text == placeholder {
                entry.value = value.clone();
            } else if text.contains(&placeholder) {
                *text = text.replace(&placeholder, &as_text);
            }
        }
    };
    node.entries.iter_mut().for_each(replace);
    node.children.iter_mut().for_each(|child| substitute(child, name, value));
}
