//! `effai push`

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use super::{Global, Output, open};
use crate::engine::{EngineError, Pushing, What};
use crate::failure::Class;
use crate::ui::{Meter, style};
use crate::util::text::{bytes, duration};

/// Take artifacts to remotes: of these targets and of all they stand on, what is not there yet
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, tag:WORD, or LABEL@REV; without any, the project's `default` or all
    targets: Vec<String>,
    /// Only to this remote
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
    /// The artifacts of all keys of the store, whosever they are
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    /// Send what is there, too: to a remote that has lost or damaged something
    #[arg(long)]
    again: bool,
}

/// What went to one remote.
#[derive(Default)]
struct Count {
    sent: usize,
    there: usize,
    bytes: u64,
}

/// Sends these targets' artifacts, as a hook does.
pub(super) fn these(global: &Global, targets: Vec<String>, output: &Output) -> Result<u8, EngineError> {
    run(global, &Args { targets, remote: None, all: false, again: false }, output)
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let begin = Instant::now();
    let mut engine = open(global)?;
    let remotes = engine.remotes(args.remote.as_deref(), true)?;
    let words = if args.targets.is_empty() { engine.default_words().to_vec() } else { args.targets.clone() };
    let what = if args.all { What::All } else { What::Targets(engine.select_at(&words, &[])?) };
    let mut counts: BTreeMap<String, Count> =
        remotes.iter().map(|remote| (remote.name.clone(), Count::default())).collect();
    let mut meter = Meter::new(!output.quiet && !output.json);
    let mut worst = None;
    engine.push(&what, &remotes, args.again, &mut |told| {
        if let Pushing::Progress { done, total } = told {
            return meter.show("sending", done, total);
        }
        worst = worst.max(class(&told));
        count(&told, &mut counts);
        meter.aside(|| say(&told, output));
    })?;
    meter.end();
    for (name, Count { sent, there, bytes: went }) in &counts {
        if output.json {
            output.object(&json!({ "version": 1, "remote": name, "sent": sent, "there": there, "bytes": went }));
        } else {
            let took = duration(begin.elapsed().as_millis() as u64);
            output.note(&format!("{sent} sent to {name} ({}), {there} there already, in {took}", bytes(*went)));
        }
    }
    Ok(worst.map_or(0, |(_, class)| class.exit_code()))
}

/// Whose move it is after this, with its weight among others: a remote or a disk before what was not built.
fn class(told: &Pushing) -> Option<(u8, Class)> {
    match told {
        Pushing::Unbuilt { .. } => Some((0, Class::Target)),
        Pushing::Failed(failure) => Some((1, failure.class)),
        Pushing::LeftOut(_) => Some((2, Class::Environment)),
        Pushing::Sent { .. } | Pushing::Progress { .. } | Pushing::Wrong(_) => None,
    }
}

fn count(told: &Pushing, counts: &mut BTreeMap<String, Count>) {
    let Pushing::Sent { sent, .. } = told else { return };
    for one in sent {
        let count = counts.entry(one.remote.clone()).or_default();
        *(if one.is_new { &mut count.sent } else { &mut count.there }) += 1;
        count.bytes += one.bytes;
    }
}

fn say(told: &Pushing, output: &Output) {
    if output.json {
        return say_json(told, output);
    }
    match told {
        Pushing::Unbuilt { label, why } => {
            output.note(&format!("{} {label}  {why}", style::yellow("not sent")));
        }
        Pushing::Sent { label, sent, artifact, .. } => {
            for one in sent {
                if one.is_new {
                    let cost = style::dim(&format!("{} to {}", bytes(one.bytes), one.remote));
                    output.note(&format!("{}    {label}  {cost}", style::green("sent")));
                } else if output.verbose {
                    output.note(&format!("{}   {label}  {}", style::green("there"), style::dim(&one.remote)));
                }
                if let Some(other) = one.other {
                    let (theirs, ours) = (other.short(), artifact.short());
                    output.note(&format!(
                        "{} {label}: {} has {theirs} under its key and keeps that; this machine made {ours}",
                        style::yellow("warning"),
                        one.remote
                    ));
                }
            }
        }
        Pushing::LeftOut(out) => {
            let help = "what was sent is there: `effai push` goes on from it";
            output.error(&format!("the remote `{}`: {}", out.remote, out.why), Some(help));
        }
        Pushing::Wrong(wrong) => output.error(&wrong.to_string(), Some("`effai push --again` sends it anew")),
        Pushing::Failed(failure) => output.error(&failure.message, failure.help.as_deref()),
        Pushing::Progress { .. } => {}
    }
}

fn say_json(told: &Pushing, output: &Output) {
    match told {
        Pushing::Unbuilt { label, why } => {
            output.object(&json!({ "version": 1, "label": label, "not-sent": why }));
        }
        Pushing::Sent { label, key, artifact, sent } => {
            for one in sent {
                output.object(&json!({
                    "version": 1, "label": label, "key": key, "artifact": artifact, "remote": one.remote,
                    "new": one.is_new, "bytes": one.bytes, "other": one.other,
                }));
            }
        }
        Pushing::LeftOut(out) => {
            output.object(&json!({ "version": 1, "remote": out.remote, "left-out": out.why }));
        }
        Pushing::Wrong(wrong) => {
            output.object(&json!({
                "version": 1, "remote": wrong.remote, "wrong": wrong.object, "expected": wrong.expected,
                "found": wrong.found,
            }));
        }
        Pushing::Failed(failure) => output.object(&json!({ "version": 1, "failed": failure })),
        Pushing::Progress { .. } => {}
    }
}
