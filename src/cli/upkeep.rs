//! `effai cache prune` and `effai cache verify`

use serde_json::json;

use super::Output;
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::store::{Fault, Limits, Mode, Pruned};
use crate::util::text::{bytes, count, parse_bytes, parse_seconds};

/// Delete what nothing needs; for a size, pack what shares bytes, then delete what has not been used for longest
#[derive(Debug, clap::Args)]
pub(super) struct Prune {
    /// Until the store is no larger than SIZE, e.g. 20G
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    to: Option<u64>,
    /// What was not used for so long, e.g. 30d
    #[arg(long, value_name = "SPAN", value_parser = parse_seconds)]
    older_than: Option<f64>,
    /// Also what effai.lock of some branch or tag names
    #[arg(long)]
    locked: bool,
    /// Also what the current state of a project stands on
    #[arg(long)]
    all: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

/// Read everything in the store again and tell what is damaged
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// Take damaged files aside and forget what needs them: the next build makes it anew
    #[arg(long)]
    repair: bool,
}

fn wait(output: &Output) -> impl FnMut() + '_ {
    || output.note("waiting for the builds that use the store")
}

pub(super) fn prune(engine: &Engine, args: &Prune, output: &Output) -> Result<u8, EngineError> {
    let since = |seconds: f64| {
        jiff::Timestamp::now()
            .checked_sub(jiff::SignedDuration::from_secs(seconds as i64))
            .map_err(|_| Failure::user("--older-than goes back further than there is time"))
    };
    let limits = Limits { bytes_max: args.to, used_since: args.older_than.map(since).transpose()? };
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Delete };
    let mut standing = || if args.all { Ok(Vec::new()) } else { engine.standing(!args.locked) };
    let pruned = engine.store.prune(&limits, mode, &mut standing, &mut wait(output))?;
    tell(&pruned, args, output);
    Ok(0)
}

fn tell(pruned: &Pruned, args: &Prune, output: &Output) {
    let saved = pruned.packed.iter().map(|packed| packed.bytes_saved).sum();
    if output.json {
        for packed in &pruned.packed {
            output.object(&json!({
                "version": 1, "packed": packed.digest.to_string(), "label": packed.label,
                "bytes-saved": packed.bytes_saved,
            }));
        }
        for (key, size) in &pruned.forgotten {
            output.object(&json!({
                "version": 1, "forgotten": key.key.to_string(), "label": key.label,
                "used-at": key.used_at.to_string(), "bytes": size,
            }));
        }
        output.object(&json!({
            "version": 1, "dry-run": args.dry_run, "keys": pruned.forgotten.len(), "blobs": pruned.blobs,
            "packed": pruned.packed.len(), "bytes-saved": saved, "bytes": pruned.bytes, "bytes-left": pruned.bytes_left,
        }));
        return;
    }
    if args.dry_run || output.verbose {
        for packed in &pruned.packed {
            let label = packed.label.as_deref().unwrap_or("what a project stands on");
            output.line(&format!("{:>10}  packed      {label}", bytes(packed.bytes_saved)));
        }
        for (key, size) in &pruned.forgotten {
            let day = key.used_at.strftime("%Y-%m-%d");
            output.line(&format!("{:>10}  {day}  {}", bytes(*size), key.label));
        }
    }
    if !pruned.packed.is_empty() {
        let (done, saves) = if args.dry_run { ("would pack", "would save") } else { ("packed", "saves") };
        output.line(&format!("{done} {}, which {saves} {}", count(pruned.packed.len(), "blob"), bytes(saved)));
    }
    let (done, left) = if args.dry_run { ("would delete", "would be left") } else { ("deleted", "left") };
    output.line(&format!(
        "{done} {} in {} under {}; {} {left}",
        bytes(pruned.bytes),
        count(pruned.blobs, "blob"),
        count(pruned.forgotten.len(), "key"),
        bytes(pruned.bytes_left)
    ));
    for (who, size) in &pruned.kept {
        output.note(&format!("kept: {} that {who} stands on (--all takes it too)", bytes(*size)));
    }
}

pub(super) fn verify(engine: &Engine, args: &Verify, output: &Output) -> Result<u8, EngineError> {
    let store = &engine.store;
    let mut closed = if args.repair { Some(store.gate.close(&mut wait(output))?) } else { store.gate.try_close()? };
    engine.check_databases()?;
    let (leftovers, stale_rows) = match closed {
        Some(_) => (store.leftovers()?, store.stale_rows()?),
        None => {
            output.note("builds use the store: leftovers and rows without a blob are not looked for");
            Default::default()
        }
    };
    // Only repair keeps builds out while everything is read.
    let _hold = if args.repair {
        None
    } else {
        drop(closed.take());
        Some(store.gate.hold()?)
    };
    let standing: Vec<Digest> = engine.standing(false)?.into_iter().flat_map(|s| s.artifacts).collect();
    let checked = store.verify(&standing, leftovers, stale_rows)?;
    if args.repair {
        engine.forget_artifacts(&checked.artifacts)?;
        store.repair(&checked)?;
    }
    for problem in &checked.problems {
        let path = problem.path.display();
        let labels: Vec<&str> = problem.labels.iter().map(String::as_str).collect();
        if output.json {
            output.object(&json!({
                "version": 1, "problem": problem.fault.name(), "path": path.to_string(), "labels": labels,
                "repaired": args.repair,
            }));
            continue;
        }
        let what = match problem.fault {
            Fault::Changed => "was changed",
            Fault::Missing => "is missing",
            Fault::NotATree => "is not the list of files it should be",
            Fault::Leftover => "does not belong here",
            Fault::StaleRow => "is in the index and not there",
        };
        let needed = if labels.is_empty() { String::new() } else { format!("; needed by {}", labels.join(", ")) };
        output.line(&format!("{path} {what}{needed}"));
    }
    let read = format!("{} in {}", bytes(checked.bytes), count(checked.blobs, "blob"));
    match (checked.problems.len(), args.repair) {
        (0, _) => output.note(&format!("{read}: all as it should be")),
        (n, true) => {
            output.note(&format!("{read}: {} repaired; the next build makes what is gone", count(n, "problem")))
        }
        (n, false) => {
            output.error(
                &format!("{read}: {}", count(n, "problem")),
                Some("`effai cache verify --repair`, then build again: what is damaged is made anew"),
            );
        }
    }
    Ok(u8::from(!checked.problems.is_empty()))
}
