//! `effai compare`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Global, Output, diff, open};
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::fingerprint::{Digest, Fact};
use crate::report::beside::{Beside, Unit, Value, of_csv};
use crate::report::page;
use crate::store::KeyRow;
use crate::ui::style;
use crate::util::fs;

/// The table of a report, which every kind of report writes.
const TABLE: &str = "report.csv";
/// The kind that holds models against each other.
const REPORT: &str = "report";

/// Put artifacts beside each other: sizes, what they cost, and every number that reports have of them
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, LABEL~1 for the key before, LABEL@REV for what a commit stands for, or keys by their first digits; of reports, what
    /// each says of its models
    #[arg(required = true, num_args = 2..)]
    artifacts: Vec<String>,
    /// Write the table as a page, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// One of them.
struct Subject {
    label: Option<String>,
    row: KeyRow,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let subjects = args.artifacts.iter().map(|word| subject(&engine, word)).collect::<Result<Vec<_>, _>>()?;
    let mut beside = Beside::new(args.artifacts.clone());
    for (i, Subject { row, .. }) in subjects.iter().enumerate() {
        beside.add(i, None, "size", Unit::Bytes, Value::alone(row.size as f64));
        beside.add(i, None, "made in", Unit::Milliseconds, Value::alone(row.wall_ms as f64));
        beside.add(i, None, "peak memory", Unit::Bytes, Value::alone(row.peak_bytes as f64));
    }
    for (i, Subject { row, .. }) in subjects.iter().enumerate() {
        // A report's own numbers have their intervals in its table.
        match table(&engine, &row.artifact)? {
            Some(own) => {
                for (label, numbers) in own {
                    for (name, value) in numbers {
                        beside.add(i, Some(&label), &name, Unit::Number, value);
                    }
                }
            }
            None => {
                for (name, value) in &row.metrics {
                    beside.add(i, None, name, Unit::Number, Value::alone(*value));
                }
            }
        }
    }
    for (report, artifacts, said) in reports(&engine, &subjects)? {
        for (i, Subject { label, row }) in subjects.iter().enumerate() {
            let numbers =
                label.as_ref().filter(|_| artifacts.contains(&row.artifact)).and_then(|label| said.get(label));
            for (name, value) in numbers.into_iter().flatten() {
                beside.add(i, Some(&report), name, Unit::Number, *value);
            }
        }
    }
    let apart = machines(&engine, &subjects)?;
    if apart.len() > 1 {
        beside.rows.retain(|row| !is_of_machine(&row.name));
    }
    if let Some(path) = &args.html {
        fs::write(path, page::of_beside(&beside)?.as_bytes())?;
        output.note(&format!("written: {}", path.display()));
    }
    if output.json {
        let machines: Option<Vec<_>> = (apart.len() > 1).then(|| apart.iter().collect());
        output.object(&serde_json::json!({
            "version": 1, "subjects": beside.subjects, "rows": beside.rows, "machines-apart": machines,
        }));
        return Ok(0);
    }
    if apart.len() > 1 {
        let apart: Vec<String> = apart.into_iter().collect();
        output.note(&format!(
            "their speeds are left out, as they were measured on different machines: {}",
            apart.join("; ")
        ));
    }
    for (i, line) in beside.text().iter().enumerate() {
        output.line(&if i == 0 { style::dim(line) } else { line.clone() });
    }
    Ok(0)
}

fn subject(engine: &Engine, word: &str) -> Result<Subject, EngineError> {
    let (key, label) = diff::key_of(engine, word)?;
    let row = engine.store.index.get(&key)?.ok_or_else(|| {
        let help = label.as_ref().map_or_else(
            || "build it, or `effai pull` it".to_owned(),
            |label| format!("`effai build {label}` builds it, or `effai pull` brings it"),
        );
        Failure::user(format!("the artifact of {word} is not in the store")).help(help)
    })?;
    Ok(Subject { label, row })
}

/// The machines that any of these were measured on, or a report's models.
fn machines(engine: &Engine, subjects: &[Subject]) -> Result<BTreeSet<String>, EngineError> {
    let mut found = BTreeSet::new();
    for Subject { row, .. } in subjects {
        if let Some(Fact::Text(machine)) = row.manifest.get("machine") {
            found.insert(machine.clone());
        } else if row.kind == REPORT {
            let report = fs::read(&engine.aside(&row.artifact)?.path().join("report.json"))?;
            let report: serde_json::Value = serde_json::from_slice(&report).unwrap_or_default();
            found.extend(report["machine"].as_str().filter(|machine| !machine.is_empty()).map(str::to_owned));
        }
    }
    Ok(found)
}

/// Whether a number says as much of the machine as of what was measured on it.
fn is_of_machine(name: &str) -> bool {
    ["_ms", "_per_s", "peak_bytes", "/s"].iter().any(|end| name.ends_with(end))
}

type Said = BTreeMap<String, Vec<(String, Value)>>;

/// An artifact's own table, if it is a report.
fn table(engine: &Engine, artifact: &Digest) -> Result<Option<Said>, EngineError> {
    let files = engine.aside(artifact)?;
    let path = files.path().join(TABLE);
    match fs::read(&path) {
        Ok(text) => Ok(Some(of_csv(&text).map_err(|e| Failure::target(format!("{}: {e}", path.display())))?)),
        Err(e) if e.is_missing() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Reports that were made of any of these: the label, the artifacts that each stands on, and what it says.
fn reports(engine: &Engine, subjects: &[Subject]) -> Result<Vec<(String, Vec<Digest>, Said)>, EngineError> {
    let mut found = Vec::new();
    let plan = engine.plan();
    let of_reports = plan.declared().filter_map(|label| plan.find(label));
    for index in of_reports.filter(|index| plan.kind(*index).schema().name == REPORT) {
        let label = engine.label(index);
        let Some(state) = engine.state(&label)? else { continue };
        let artifact = |fact: (&str, &Fact)| match fact.1 {
            Fact::Artifact(digest) => Some(*digest),
            _ => None,
        };
        let artifacts: Vec<Digest> = state.manifest.facts().filter_map(artifact).collect();
        let is_of_them = subjects.iter().any(|subject| artifacts.contains(&subject.row.artifact));
        if !is_of_them {
            continue;
        }
        let Some(row) = engine.store.index.get(&state.key)? else { continue };
        if let Some(said) = table(engine, &row.artifact)? {
            found.push((label.to_string(), artifacts, said));
        }
    }
    Ok(found)
}
