//! The graph as one HTML file that needs no network: pan, zoom, search, and what is known of each target.

use minijinja::{Environment, context};

use super::svg::{RULES, drawing, layout};
use super::{Node, STATES};
use crate::failure::Failure;

/// Fills the page's template. The layout is made here: a browser only moves what is drawn.
pub fn html(title: &str, nodes: &[Node]) -> Result<String, Failure> {
    let layout = layout(nodes);
    let mut environment = Environment::new();
    let bad = |e: minijinja::Error| Failure::target(format!("the graph's page cannot be made: {e}"));
    environment.add_template("graph.html", include_str!("../templates/graph.html")).map_err(bad)?;
    let states: Vec<(&str, &str, usize)> = STATES
        .iter()
        .map(|(verdict, word, meaning)| (*word, *meaning, nodes.iter().filter(|n| n.state == Some(*verdict)).count()))
        .filter(|(.., count)| *count > 0)
        .collect();
    let template = environment.get_template("graph.html").map_err(bad)?;
    template
        .render(context! {
            title,
            nodes,
            states,
            rules => RULES,
            drawing => drawing(nodes, &layout),
            places => layout.nodes,
            width => layout.width,
            height => layout.height,
        })
        .map_err(bad)
}
