//! `effai hooks`

use super::{Global, Output, open, restore};
use crate::engine::EngineError;
use crate::failure::Failure;
use crate::git::Git;
use crate::git::hooks::{self, HOOKS, Stand, USUAL};
use crate::lock::FILE;
use crate::ui::style;

/// Install git hooks, take them away, or say how they stand
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Install hooks; what was there is kept, and called first
    Install {
        /// Which; by default all but prepare-commit-msg
        hooks: Vec<String>,
    },
    /// Take hooks away and put back what was there before
    Remove {
        /// Which; by default all
        hooks: Vec<String>,
    },
    /// Say which are installed and what each does
    Status,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let named = |hooks: &[String], all: &[&str]| -> Vec<String> {
        if hooks.is_empty() { all.iter().map(|name| (*name).to_owned()).collect() } else { hooks.to_vec() }
    };
    match &args.what {
        What::Install { hooks } => {
            let names = named(hooks, USUAL);
            names.iter().try_for_each(|name| hooks::check_name(name))?;
            hooks::configure(&git, FILE)?;
            for name in names {
                let how = words(&hooks::install(&git, &name)?);
                output.note(&format!("{name}: {how}"));
            }
        }
        What::Remove { hooks } => {
            let all: Vec<&str> = HOOKS.iter().map(|(name, _)| *name).collect();
            for name in named(hooks, &all) {
                if hooks::remove(&git, &name)? {
                    output.note(&format!("{name}: removed"));
                }
            }
            let is_ours = |stand: &Stand| !matches!(stand, Stand::Absent | Stand::Other);
            if !hooks::status(&git)?.iter().any(|(_, _, stand)| is_ours(stand)) {
                hooks::forget(&git, FILE)?;
            }
        }
        What::Status => {
            if let Some(log) = restore::behind(&engine.root)? {
                output.note(&format!(
                    "a checkout's restore goes on: `effai restore` waits for it, {log} has what it says"
                ));
            }
            for (name, what, stand) in hooks::status(&git)? {
                if output.json {
                    output.object(&serde_json::json!({"version": 1, "hook": name, "stand": stand, "does": what}));
                } else {
                    let how = format!("{:<42}", words(&stand));
                    let how = if stand == Stand::Absent { style::dim(&how) } else { how };
                    output.line(&format!("{name:<19} {how} {what}"));
                }
            }
        }
    }
    Ok(0)
}

fn words(stand: &Stand) -> &'static str {
    match stand {
        Stand::Absent => "not installed",
        Stand::Other => "not installed; another program's is there",
        Stand::Installed => "installed",
        Stand::Chained => "installed, after what was there before",
        Stand::InHusky => "installed, in husky's file",
    }
}
