//! `effai graph`

use std::path::PathBuf;

use super::{Global, Output, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::report::graph::{self, Node, PAGE_NODES_MAX, SVG_NODES_MAX};
use crate::util::fs;
use crate::util::text::count;

/// Facts of one target that the page shows.
const FACTS_MAX: usize = 40;

/// Print the graph of targets, or draw it
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, or tag:WORD; without any, all
    targets: Vec<String>,
    /// Leave these out: a label, glob or tag:WORD
    #[arg(long, value_name = "TARGET")]
    exclude: Vec<String>,
    /// In which form
    #[arg(long, value_enum, default_value_t = Format::Tree)]
    format: Format,
    /// Write to FILE instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show the parts that targets bring along
    #[arg(long)]
    parts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Format {
    /// Indented text
    Tree,
    /// Graphviz
    Dot,
    /// Mermaid, for Markdown
    Mermaid,
    /// A picture, with the state of each target
    Svg,
    /// A page to look around in, with the state, facts and history of each target
    Html,
    /// One object a line
    Json,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let chosen = engine.select_at(&args.targets, &args.exclude)?;
    let closure = engine.plan().closure(&chosen);
    let shown: Vec<usize> = closure.iter().copied().filter(|i| args.parts || !engine.label(*i).is_part()).collect();
    let format = if output.json { Format::Json } else { args.format };
    refuse_too_many(format, shown.len())?;
    let mut nodes = nodes(&engine, &closure, &shown);
    let text = match format {
        Format::Tree => graph::tree(&nodes),
        Format::Dot => graph::dot(&nodes),
        Format::Mermaid => graph::mermaid(&nodes),
        Format::Json => json(&nodes),
        Format::Svg | Format::Html => {
            judge(&mut engine, &closure, &shown, &mut nodes, output);
            let title = engine.settings().name.clone();
            if format == Format::Svg { graph::svg(&nodes) } else { graph::html(&title, &nodes)? }
        }
    };
    match &args.output {
        Some(path) => {
            fs::write(path, text.as_bytes())?;
            output.note(&format!("{} in {}", count(nodes.len(), "target"), path.display()));
        }
        None => output.line(&text),
    }
    Ok(0)
}

fn refuse_too_many(format: Format, nodes: usize) -> Result<(), Failure> {
    let (what, most, other) = match format {
        Format::Svg => ("a picture", SVG_NODES_MAX, "`--format html` has zoom and search, or "),
        Format::Html => ("a page", PAGE_NODES_MAX, ""),
        _ => return Ok(()),
    };
    if nodes <= most {
        return Ok(());
    }
    let message = format!("{nodes} targets are too many for {what}, {most} is the most");
    Err(Failure::user(message).help(format!(
        "{other}name the targets to show, such as `effai graph 'models/*'`: they and what they stand on are drawn"
    )))
}

/// The shown targets. Where one stands on something by way of a part that is not shown, it stands on that.
fn nodes(engine: &Engine, closure: &[usize], shown: &[usize]) -> Vec<Node> {
    let mut place = vec![usize::MAX; engine.plan().len()];
    shown.iter().enumerate().for_each(|(new, old)| place[*old] = new);
    let mut hidden: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
    let mut nodes = Vec::with_capacity(shown.len());
    let sources = engine.sources();
    for &index in closure {
        let mut stands_on = Vec::new();
        for dependency in engine.plan().dependencies(index) {
            match place[dependency.index] {
                usize::MAX => stands_on.extend(&hidden[&dependency.index]),
                new => stands_on.push(new),
            }
        }
        stands_on.sort_unstable();
        stands_on.dedup();
        if place[index] == usize::MAX {
            hidden.insert(index, stands_on);
            continue;
        }
        let plan = engine.plan();
        nodes.push(Node {
            label: plan.name(index).to_owned(),
            kind: plan.kind(index).schema().name.to_owned(),
            place: sources.place(plan.place(index)),
            stands_on,
            ..Node::default()
        });
    }
    nodes
}

/// Adds states, facts and last runs. A project that cannot be judged, for a missing file, is still drawn.
fn judge(engine: &mut Engine, closure: &[usize], shown: &[usize], nodes: &mut [Node], output: &Output) {
    let all = match engine.judge_all(closure) {
        Ok(all) => all,
        Err(failure) => return output.note(&format!("drawn without states: {failure}")),
    };
    for (index, node) in shown.iter().zip(nodes) {
        let judged = &all[index];
        node.state = Some(judged.verdict);
        node.reasons = judged.reasons.iter().map(ToString::to_string).collect();
        if let Ok(Some(manifest)) = engine.facts(*index, &all) {
            let mut facts = manifest.facts().map(|(name, fact)| (name.to_owned(), fact.to_string()));
            node.facts = facts.by_ref().take(FACTS_MAX).collect();
            node.facts_left_out = facts.count();
        }
        if let Some(past) = engine.record.past(&engine.label(*index)) {
            (node.wall_ms, node.peak_bytes) = (Some(past.wall_ms), Some(past.peak_bytes));
        }
    }
}

fn json(nodes: &[Node]) -> String {
    let lines = nodes.iter().map(|node| {
        let names: Vec<&str> = node.stands_on.iter().map(|i| nodes[*i].label.as_str()).collect();
        let object = serde_json::json!({
            "version": 1, "label": node.label, "kind": node.kind, "place": node.place, "stands-on": names,
        });
        format!("{object}\n")
    });
    lines.collect()
}
