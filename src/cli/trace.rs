//! `effai trace`

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Global, Output, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::record::{BuildRow, Run};
use crate::report::trace::{Slice, advice, critical_path, events};
use crate::ui::style;
use crate::util::fs;
use crate::util::text::{count, duration, local_time, percent};

/// Say what a past build spent its time on, and what would make it shorter
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which build: a number of `effai log`, or `last`
    #[arg(long, value_name = "ID", default_value = "last")]
    build: String,
    /// Write the time line to FILE, for ui.perfetto.dev or chrome://tracing
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let build = find(&engine, &args.build)?;
    let slices = slices(engine.record.runs_of_build(build.id)?);
    // A build that was killed has no end but that of its last action.
    let last = slices.iter().map(|s| s.end_us).max().unwrap_or(0);
    let wall_us = build.wall_ms.map_or(last, |ms| (ms * 1000).max(last));
    if let Some(path) = &args.output {
        let about = serde_json::json!({
            "version": 1, "build": build.id, "started-at": build.started_at, "asked": build.asked, "jobs": build.jobs,
            "wall-ms": build.wall_ms,
        });
        fs::write(path, events(&slices, wall_us, &about).to_string().as_bytes())?;
    }
    if output.json {
        output.object(&summary(&build, &slices, wall_us));
    } else {
        tell(&build, &slices, wall_us, output);
    }
    if let Some(path) = &args.output {
        output.note(&format!("the time line is in {}; open it at ui.perfetto.dev", path.display()));
    }
    Ok(0)
}

fn find(engine: &Engine, word: &str) -> Result<BuildRow, EngineError> {
    let see = "`effai log` lists the builds there were";
    if word == "last" {
        let none = || Failure::user("no build has run anything here yet").help("`effai build` first");
        return Ok(engine.record.last_build()?.ok_or_else(none)?);
    }
    let id = word.parse().map_err(|_| Failure::user(format!("`{word}` is no number of a build")).help(see))?;
    Ok(engine.record.build(id)?.ok_or_else(|| Failure::user(format!("there is no build {id}")).help(see))?)
}

/// Rows as slices; what each stands on becomes a place in the list.
fn slices(runs: Vec<Run>) -> Vec<Slice> {
    // A target that ran twice in a build, because its bytes were gone, stands for its last run.
    let place: BTreeMap<String, usize> = runs.iter().enumerate().map(|(i, r)| (r.label.clone(), i)).collect();
    let slice = |run: Run| {
        let timing = run.timing?;
        Some(Slice {
            label: run.label,
            kind: run.kind,
            key: run.key.short(),
            outcome: run.outcome,
            pool: timing.pool,
            ready_us: timing.ready_us,
            start_us: timing.start_us,
            end_us: timing.end_us,
            cpu_ms: run.cpu_ms,
            peak_bytes: run.peak_bytes,
            threads: run.threads,
            reasons: run.reasons,
            after: timing.after.iter().filter_map(|label| place.get(label).copied()).collect(),
        })
    };
    runs.into_iter().filter_map(slice).collect()
}

fn tell(build: &BuildRow, slices: &[Slice], wall_us: u64, output: &Output) {
    let asked = if build.asked.is_empty() { String::new() } else { format!(", {}", build.asked.join(" ")) };
    let unended = if build.wall_ms.is_none() { ", which never came to its end" } else { "" };
    output.line(&format!(
        "build {}{unended}, {}{asked}: {} in {}, {} at once",
        build.id,
        local_time(&build.started_at),
        count(slices.len(), "action"),
        duration(wall_us / 1000),
        count(build.jobs, "job"),
    ));
    if slices.is_empty() {
        return output.line("nothing ran");
    }
    let path = critical_path(slices);
    let share = |us: u64| percent(us as f64 / wall_us.max(1) as f64);
    let total: u64 = path.iter().map(|i| slices[*i].took_us()).sum();
    output.line(&format!("critical path: {}, {} of the time", duration(total / 1000), share(total)));
    for slice in path.iter().map(|i| &slices[*i]) {
        let waited = slice.start_us.saturating_sub(slice.ready_us);
        let waited =
            if waited * 20 > wall_us { format!("  after {} in line", duration(waited / 1000)) } else { String::new() };
        let (took, part) = (duration(slice.took_us() / 1000), share(slice.took_us()));
        output.line(&format!("  {took:>12}  {part:>5}  {}{}", slice.label, style::dim(&waited)));
    }
    output.line("what would make it shorter:");
    for sentence in advice(slices, build.jobs, wall_us) {
        output.line(&format!("  {sentence}"));
    }
}

fn summary(build: &BuildRow, slices: &[Slice], wall_us: u64) -> serde_json::Value {
    let path = critical_path(slices);
    let total: u64 = path.iter().map(|i| slices[*i].took_us()).sum();
    let path: Vec<_> = path
        .iter()
        .map(|i| serde_json::json!({"label": slices[*i].label, "wall-ms": slices[*i].took_us() as f64 / 1e3}))
        .collect();
    serde_json::json!({
        "version": 1, "build": build.id, "started-at": build.started_at, "asked": build.asked, "jobs": build.jobs,
        "wall-ms": wall_us / 1000, "actions": slices.len(), "critical-path": path, "critical-ms": total as f64 / 1e3,
        "advice": advice(slices, build.jobs, wall_us),
    })
}
