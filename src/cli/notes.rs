//! `effai notes`

use super::{Global, Output, open};
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::git::{Git, notes};
use crate::ui::style;
use crate::util::text::{bytes, count, duration};

/// Builds recorded at commits, as git notes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Print the builds noted at a commit
    Show {
        /// A revision
        #[arg(default_value = "HEAD")]
        rev: String,
    },
    /// Send them to another repository, joined with those it has
    Push {
        /// A remote of git's
        #[arg(default_value = "origin")]
        remote: String,
    },
    /// Bring those of another repository, joined with those here
    Fetch {
        /// A remote of git's
        #[arg(default_value = "origin")]
        remote: String,
    },
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    match &args.what {
        What::Push { remote } => notes::push(&engine.root, remote)?,
        What::Fetch { remote } => notes::fetch(&engine.root, remote)?,
        What::Show { rev } => show(&git, rev, output)?,
    }
    Ok(0)
}

fn show(git: &Git, rev: &str, output: &Output) -> Result<(), Failure> {
    let version = git.version(rev)?;
    let all = notes::at(git, &version.commit)?;
    if all.is_empty() {
        output.note(&format!("no build is noted at {}", version.short()));
    }
    for note in all {
        if output.json {
            output.object(&note);
            continue;
        }
        let tree = match note.changed.len() {
            0 => "as committed".to_owned(),
            n => format!("{} changed: {}", count(n, "file"), note.changed.join(", ")),
        };
        let branch = note.branch.as_deref().unwrap_or("detached");
        output.line(&format!("{}  effai {}  {branch}, {tree}", note.at, note.effai));
        for target in &note.targets {
            output.line(&format!(
                "  {}  {}  {}  {}, {}, {}",
                target.label,
                target.artifact.short(),
                bytes(target.size),
                target.backend,
                duration(target.wall_ms),
                bytes(target.peak_bytes),
            ));
            if !target.metrics.is_empty() {
                let words: Vec<String> = target.metrics.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
                output.line(&style::dim(&format!("    {}", words.join(", "))));
            }
        }
    }
    Ok(())
}
