//! The graph as text: for a terminal, Graphviz and Markdown.

use std::fmt::Write;

use super::Node;

/// Indented text, what is asked for first.
pub fn tree(nodes: &[Node]) -> String {
    let mut text = String::new();
    for node in nodes.iter().rev() {
        let _ = writeln!(text, "{}  ({})", node.label, node.kind);
        for other in &node.stands_on {
            let _ = writeln!(text, "  <- {}", nodes[*other].label);
        }
    }
    text
}

/// Graphviz.
pub fn dot(nodes: &[Node]) -> String {
    let mut text = String::from("digraph effai {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
    for node in nodes {
        let (label, kind) = (&node.label, &node.kind);
        let _ = writeln!(text, "  \"{label}\" [label=\"{label}\\n{kind}\"];");
        for other in &node.stands_on {
            let _ = writeln!(text, "  \"{}\" -> \"{label}\";", nodes[*other].label);
        }
    }
    text + "}\n"
}

/// Mermaid, for Markdown.
pub fn mermaid(nodes: &[Node]) -> String {
    let mut text = String::from("flowchart LR\n");
    for (index, node) in nodes.iter().enumerate() {
        let _ = writeln!(text, "  t{index}[\"{}\"]", node.label);
        for other in &node.stands_on {
            let _ = writeln!(text, "  t{other} --> t{index}");
        }
    }
    text
}
