//! The graph of targets as text, as a picture and as a page.
//!
//! What is drawn is plain data ([`Node`]): who judged the targets, and whether, is not known here.
//! Nodes come in topological order, so a layout never meets a cycle.

mod layered;
mod page;
mod svg;
mod text;

use serde::Serialize;

use crate::event::Verdict;

pub use layered::{Layout, lay_out};
pub use page::html;
pub use svg::svg;
pub use text::{dot, mermaid, tree};

/// A picture with more nodes than this is a smear that no viewer opens gladly; the page has zoom and search.
pub const SVG_NODES_MAX: usize = 600;

/// Past this a browser is slow to pan the page.
pub const PAGE_NODES_MAX: usize = 5_000;

/// One target as drawn.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Node {
    /// Its label.
    pub label: String,
    /// Its kind.
    pub kind: String,
    /// File and line of its declaration.
    pub place: String,
    /// What was found out about it; none if nobody asked.
    pub state: Option<Verdict>,
    /// Why it must run.
    pub reasons: Vec<String>,
    /// Its facts, by name.
    pub facts: Vec<(String, String)>,
    /// How many more facts there are.
    pub facts_left_out: usize,
    /// Wall time of its last good run.
    pub wall_ms: Option<u64>,
    /// Peak memory of that run.
    pub peak_bytes: Option<u64>,
    /// What it stands on, by place in the list; each before it.
    pub stands_on: Vec<usize>,
}

/// The states in the order of a legend.
const STATES: [(Verdict, &str, &str); 4] = [
    (Verdict::Fresh, "fresh", "nothing to do"),
    (Verdict::Cached, "cached", "the store has it"),
    (Verdict::Stale, "stale", "must run"),
    (Verdict::Waits, "waits", "stands on something stale"),
];

fn word(state: Option<Verdict>) -> &'static str {
    state.and_then(|s| STATES.iter().find(|(v, ..)| *v == s)).map_or("", |(_, word, _)| word)
}

/// Text as XML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a <- b` and `a <- c`, both under `d`.
    pub(super) fn diamond() -> Vec<Node> {
        let node = |label: &str, state, stands_on: &[usize]| Node {
            label: label.into(),
            kind: "command".into(),
            state: Some(state),
            stands_on: stands_on.to_vec(),
            ..Node::default()
        };
        vec![
            node("data/a", Verdict::Fresh, &[]),
            node("b", Verdict::Cached, &[0]),
            node("c<1>", Verdict::Stale, &[0]),
            node("d", Verdict::Waits, &[1, 2]),
        ]
    }

    #[test]
    fn texts() {
        let nodes = diamond();
        assert_eq!(
            dot(&nodes),
            "digraph effai {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n  \"data/a\" [label=\"data/a\\ncommand\"];\n  \
             \"b\" [label=\"b\\ncommand\"];\n  \"data/a\" -> \"b\";\n  \"c<1>\" [label=\"c<1>\\ncommand\"];\n  \
             \"data/a\" -> \"c<1>\";\n  \"d\" [label=\"d\\ncommand\"];\n  \"b\" -> \"d\";\n  \"c<1>\" -> \"d\";\n}\n"
        );
        assert_eq!(mermaid(&nodes[..2]), "flowchart LR\n  t0[\"data/a\"]\n  t1[\"b\"]\n  t0 --> t1\n");
        assert_eq!(tree(&nodes[..2]), "b  (command)\n  <- data/a\ndata/a  (command)\n");
    }

    #[test]
    fn a_picture_says_each_state_in_words_and_escapes_labels() {
        let picture = svg(&diamond());
        for (_, word, _) in STATES {
            assert!(picture.contains(&format!("command · {word}")), "{word}");
        }
        assert!(picture.contains("c&lt;1&gt;") && !picture.contains("c<1>"));
        assert_eq!(picture.matches("<path class=\"e\"").count(), 4);
        assert!(picture.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn the_page_holds_everything_and_names_no_network_address() {
        let mut nodes = diamond();
        nodes[2].reasons = vec!["file.x</script>: changed".into()];
        let page = html("a & b", &nodes).unwrap();
        assert!(!page.contains("https:") && !page.contains("src=") && !page.contains("@import"));
        assert_eq!(page.matches("</script>").count(), 1, "data cannot end the script");
        assert!(page.contains("<title>a &amp; b"));
    }
}
