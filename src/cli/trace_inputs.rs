//! `effai trace-inputs`

use serde_json::json;

use super::{Global, Output, build, open};
use crate::action::Cancel;
use crate::engine::EngineError;
use crate::event::Event;
use crate::failure::Failure;
use crate::schedule::{BuildOptions, lacks};

/// Run a target's program once and say what it opens that the target does not declare
///
/// The program may read everything while it is looked on (by strace, on Linux). What it makes is not kept.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The target; what it stands on is built first
    target: String,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    let chosen = engine.select(std::slice::from_ref(&args.target), &[])?;
    let [index] = chosen[..] else {
        let message = format!("`{}` means {} targets", args.target, chosen.len());
        return Err(Failure::user(message).help("name one").into());
    };
    let cancel = Cancel::default();
    let ask = cancel.clone();
    build::watch_signals(move || ask.ask())?;
    let options = BuildOptions { asked: vec![args.target.clone()], ..BuildOptions::new(build::jobs(None)) };
    // What is built on the way is told on standard error, also where the answer is for a program.
    let shown = Output { json: false, quiet: true, verbose: output.verbose };
    let mut watcher = build::watcher(&shown, false, build::Progress::Auto, build::Shown::Failed, &engine.root)?;
    let found = lacks(&mut engine, index, &options, &cancel, &mut |event: &Event| watcher.see(event))?;
    let Some(found) = found else { return Ok(if cancel.is_asked() { 130 } else { 1 }) };
    drop(watcher);
    for (field, value) in &found.fields {
        if output.json {
            output.object(&json!({ "version": 1, "field": field, "value": value }));
        } else {
            output.line(&format!("{field} {}", serde_json::to_string(value).expect("text")));
        }
    }
    let (label, place) = (engine.label(index), engine.place(index));
    output.note(&match found.fields.len() {
        0 => format!("{label} opens nothing that it does not declare"),
        _ => format!("for {label} in {place}"),
    });
    for path in &found.unread {
        output.note(&format!("declared and not opened this time: {}", path.display()));
    }
    match found.failure {
        Some(failure) => Err(failure.within("the program failed, and may have opened more otherwise").into()),
        None => Ok(0),
    }
}
