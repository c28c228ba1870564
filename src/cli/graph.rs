//! `effai graph`

use super::{Global, Output, open};
use crate::engine::EngineError;

/// Print the graph of targets
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels or globs; without any, all
    targets: Vec<String>,
    /// In which form
    #[arg(long, value_enum, default_value_t = Format::Tree)]
    format: Format,
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
    /// One object a line
    Json,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let plan = engine.plan();
    let chosen = plan.select(&args.targets)?;
    let shown: Vec<usize> =
        plan.closure(&chosen).into_iter().filter(|i| args.parts || !engine.label(*i).is_part()).collect();
    let under =
        |index: usize| plan.dependencies(index).map(|d| d.index).filter(|i| shown.contains(i)).collect::<Vec<_>>();
    let format = if output.json { Format::Json } else { args.format };
    match format {
        Format::Tree => {
            for &index in shown.iter().rev() {
                output.line(&format!("{}  ({})", engine.label(index), plan.kind(index).schema().name));
                for other in under(index) {
                    output.line(&format!("  <- {}", engine.label(other)));
                }
            }
        }
        Format::Dot => {
            output.line("digraph effai {\n  rankdir=LR;\n  node [shape=box, style=rounded];");
            for &index in &shown {
                let (label, kind) = (engine.label(index), plan.kind(index).schema().name);
                output.line(&format!("  \"{label}\" [label=\"{label}\\n{kind}\"];"));
                for other in under(index) {
                    output.line(&format!("  \"{}\" -> \"{label}\";", engine.label(other)));
                }
            }
            output.line("}");
        }
        Format::Mermaid => {
            output.line("flowchart LR");
            for &index in &shown {
                output.line(&format!("  t{index}[\"{}\"]", engine.label(index)));
                for other in under(index) {
                    output.line(&format!("  t{other} --> t{index}"));
                }
            }
        }
        Format::Json => {
            for &index in &shown {
                let names: Vec<_> = under(index).into_iter().map(|i| engine.label(i)).collect();
                output.object(&serde_json::json!({
                    "version": 1, "label": engine.label(index), "kind": plan.kind(index).schema().name,
                    "stands-on": names,
                }));
            }
        }
    }
    Ok(0)
}
