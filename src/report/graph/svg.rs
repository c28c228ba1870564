//! The graph as one SVG picture, in light and in dark. A state is a shape, a word and a line as well as a colour.

use std::fmt::Write;

use super::layered::{Layout, NODE_HEIGHT, Route, lay_out};
use super::{Node, STATES, escape, word};
use crate::event::Verdict;

/// Room around the picture.
const MARGIN: f64 = 20.0;
/// Room for the legend.
const LEGEND: f64 = 40.0;
/// Letters of a label that are shown; the whole is in the tooltip.
const LETTERS_MAX: usize = 42;

/// The rules of a drawing's classes; the page uses them too.
pub(super) const RULES: &str = "\
.gx{--ink:#1f2328;--soft:#5f6670;--line:#a9b0b8;--paper:#fff;--card:#f5f7f9;--fresh:#00795a;--cached:#0067a3;--stale:#a84f00;--waits:#6b727b}\
@media(prefers-color-scheme:dark){.gx{--ink:#e2e4e7;--soft:#9aa1aa;--line:#565d66;--paper:#15171a;--card:#1d2024;--fresh:#3ecfa3;--cached:#5db0ec;--stale:#f0a04b;--waits:#9aa1aa}}\
.gx text{font:12.5px system-ui,-apple-system,'Segoe UI',Roboto,Ubuntu,sans-serif;fill:var(--ink)}\
.gx .p{fill:var(--paper)}.gx .b{fill:var(--card);stroke:var(--line);stroke-width:1.2}\
.gx .l{font-weight:600}.gx .d{font-weight:400;fill:var(--soft)}.gx .k{font-size:11px;fill:var(--soft)}\
.gx .e{fill:none;stroke:var(--line);stroke-width:1.3}.gx .h{fill:var(--line)}\
.gx .fresh .b{stroke:var(--fresh)}.gx .cached .b{stroke:var(--cached)}.gx .stale .b{stroke:var(--stale);stroke-width:2.4}.gx .waits .b{stroke:var(--waits);stroke-dasharray:4 3}\
.gx .s{fill:none;stroke-width:1.8;stroke-linecap:round;stroke-linejoin:round}\
.gx .fresh .s{stroke:var(--fresh)}.gx .cached .s{stroke:var(--cached)}.gx .stale .s{stroke:var(--stale)}.gx .waits .s{stroke:var(--waits)}";

/// The whole picture.
pub fn svg(nodes: &[Node]) -> String {
    let layout = layout(nodes);
    let (width, height) = (layout.width.max(420.0) + 2.0 * MARGIN, layout.height + 2.0 * MARGIN + LEGEND);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" class=\"gx\" role=\"img\" aria-label=\"{} targets\">\
         <style>{RULES}</style><rect class=\"p\" width=\"100%\" height=\"100%\"/>",
        nodes.len()
    );
    let _ = write!(svg, "<g transform=\"translate({MARGIN} {MARGIN})\">{}</g>", drawing(nodes, &layout));
    let _ = write!(svg, "<g transform=\"translate({MARGIN} {:.0})\">{}</g>", height - LEGEND, legend(nodes));
    svg + "</svg>\n"
}

/// Places for nodes as wide as their texts.
pub(super) fn layout(nodes: &[Node]) -> Layout {
    let widths: Vec<f64> = nodes.iter().map(width).collect();
    let stands_on: Vec<Vec<usize>> = nodes.iter().map(|n| n.stands_on.clone()).collect();
    lay_out(&widths, &stands_on)
}

fn width(node: &Node) -> f64 {
    // No font is at hand to measure with: generous means of the usual ones.
    let label = shortened(&node.label).chars().count() as f64 * 7.1;
    let below = (node.kind.len() + 3 + word(node.state).len()) as f64 * 6.5;
    label.max(below) + 46.0
}

/// A long label keeps its end, where it differs from its neighbours.
fn shortened(label: &str) -> String {
    let letters = label.chars().count();
    if letters <= LETTERS_MAX {
        return label.to_owned();
    }
    format!("…{}", label.chars().skip(letters - LETTERS_MAX + 1).collect::<String>())
}

/// Edges, then nodes upon them; each names its node by number, for the page's script.
pub(super) fn drawing(nodes: &[Node], layout: &Layout) -> String {
    let mut svg = String::new();
    for route in &layout.edges {
        let (path, (x, y)) = course(route);
        let _ = write!(
            svg,
            "<g data-a=\"{}\" data-b=\"{}\"><path class=\"e\" d=\"{path}\"/><path class=\"h\" d=\"M{x:.1} {y:.1}l-7 -3.6v7.2z\"/></g>",
            route.from, route.to
        );
    }
    for (index, (node, place)) in nodes.iter().zip(&layout.nodes).enumerate() {
        draw_node(&mut svg, index, node, *place);
    }
    svg
}

fn draw_node(svg: &mut String, index: usize, node: &Node, (x, y, width): (f64, f64, f64)) {
    let state = word(node.state);
    let shown = shortened(&node.label);
    let (directory, name) = shown.rsplit_once('/').map_or(("", shown.as_str()), |(d, n)| (&shown[..=d.len()], n));
    let below = if state.is_empty() { node.kind.clone() } else { format!("{} · {state}", node.kind) };
    let mut title = node.label.clone();
    node.reasons.iter().take(8).for_each(|reason| title.push_str(&format!("\n{reason}")));
    let left = if state.is_empty() { 12.0 } else { 34.0 };
    let _ = write!(
        svg,
        "<g class=\"n {state}\" data-n=\"{index}\" transform=\"translate({x:.1} {y:.1})\"><title>{}</title>\
         <rect class=\"b\" width=\"{width:.1}\" height=\"{NODE_HEIGHT}\" rx=\"8\"/>{}\
         <text class=\"l\" x=\"{left}\" y=\"18\"><tspan class=\"d\">{}</tspan>{}</text><text class=\"k\" x=\"{left}\" y=\"33\">{}</text></g>",
        escape(&title),
        sign(node.state),
        escape(directory),
        escape(name),
        escape(&below)
    );
}

/// The shape of a state, around (18, 21): a tick, an arrow down, a triangle with a mark, three dots.
fn sign(state: Option<Verdict>) -> &'static str {
    match state {
        None => "",
        Some(Verdict::Fresh) => "<path class=\"s\" d=\"M11 21.5l5 5l9 -11\"/>",
        Some(Verdict::Cached) => "<path class=\"s\" d=\"M18 13v12m-5 -5l5 5l5 -5M11 29h14\"/>",
        Some(Verdict::Stale) => "<path class=\"s\" d=\"M18 13l8 15h-16zM18 18.5v4M18 25.2v.1\"/>",
        Some(Verdict::Waits) => "<path class=\"s\" style=\"stroke-width:3.4\" d=\"M11 21v.1M18 21v.1M25 21v.1\"/>",
    }
}

/// A level line through each run and a swing between two; and where its arrow's tip is.
fn course(route: &Route) -> (String, (f64, f64)) {
    let mut path = String::new();
    let mut end = (0.0, 0.0);
    for (i, (from, to, y)) in route.runs.iter().enumerate() {
        // The arrow's head takes the last of the line.
        let from = if i + 1 == route.runs.len() { from - 5.0 } else { *from };
        if i == 0 {
            let _ = write!(path, "M{to:.1} {y:.1}");
        } else {
            let middle = f64::midpoint(end.0, from);
            let _ = write!(path, "C{middle:.1} {:.1} {middle:.1} {y:.1} {from:.1} {y:.1}", end.1);
            if i + 1 < route.runs.len() {
                let _ = write!(path, "H{to:.1}");
            }
        }
        end = (*to, *y);
    }
    (path, end)
}

/// The states that occur, with their number.
fn legend(nodes: &[Node]) -> String {
    let mut svg = String::new();
    let mut x = 0.0;
    for (verdict, word, meaning) in STATES {
        let count = nodes.iter().filter(|n| n.state == Some(verdict)).count();
        if count == 0 {
            continue;
        }
        let text = format!("{word} ({count}): {meaning}");
        let _ = write!(
            svg,
            "<g class=\"{word}\" transform=\"translate({x:.0} 0)\"><g transform=\"translate(-8 -5)\">{}</g>\
             <text x=\"26\" y=\"20\">{text}</text></g>",
            sign(Some(verdict))
        );
        x += text.len() as f64 * 6.6 + 44.0;
    }
    svg
}
