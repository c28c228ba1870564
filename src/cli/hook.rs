//! `effai hook`: what git's hooks call.

use std::path::PathBuf;

use super::{Global, Output, build, options, push, restore};
use crate::action::program::Program;
use crate::engine::{Engine, EngineError};
use crate::failure::{Class, Failure};
use crate::git::{Git, hooks};
use crate::lock::{FILE, Lock, history};
use crate::plan::{Index, is_implied};
use crate::recipe::load::LoadError;
use crate::recipe::remote::Access;

/// Targets that the pre-commit hook builds have this tag.
const TAG: &str = "pre-commit";

/// Labels that are told one by one.
const TOLD_MAX: usize = 8;

/// The trailer that a message gets for each metric that changed.
const TRAILER: &str = "Effai-Metric";

/// Do what a git hook does
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The hook's name
    name: String,
    /// What git gives it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    hooks::check_name(&args.name)?;
    if !crate::env::has_hooks() {
        return Ok(0);
    }
    let global = Global { directory: Some(project(global)?), ..global.clone() };
    let engine = match Engine::open(&super::directory(&global)?, &options(&global)) {
        // A branch from before there was a project.
        Err(EngineError::Load(LoadError::NoProject(_))) => return Ok(0),
        // Recipes with mistakes stop a commit; what git has done already they do not.
        Err(error) if args.name != "pre-commit" => {
            super::report(&error, output);
            return Ok(0);
        }
        other => other?,
    };
    match args.name.as_str() {
        "pre-commit" => pre_commit(&global, engine, output),
        "post-checkout" if args.rest.get(2).is_some_and(|flag| flag != "1") => Ok(0),
        "post-checkout" | "post-merge" => {
            drop(engine);
            // The checkout is done, whatever becomes of this.
            restore::after_checkout(&global, output).map(|_| 0)
        }
        "pre-push" => {
            // Whatever is pushed: what the lock names is sent, and what is there already costs a question.
            drop(engine);
            pre_push(&global, output)
        }
        _ => prepare_commit_msg(&engine, &args.rest),
    }
}

/// Where the project lies: as it was said at the installation, else here.
fn project(global: &Global) -> Result<PathBuf, EngineError> {
    let here = super::directory(global)?;
    Ok(match global.directory {
        Some(_) => here,
        None => Git::project_of_hooks(&here).filter(|dir| dir.is_dir()).unwrap_or(here),
    })
}

/// Recipes that were read have no mistakes. The lock must be readable; what it no longer fits is told, and stops the commit
/// where every build is to write it.
fn pre_commit(global: &Global, mut engine: Engine, output: &Output) -> Result<u8, EngineError> {
    let tagged: Vec<Index> =
        (0..engine.plan().len()).filter(|index| engine.plan().tags(*index).any(|tag| tag == TAG)).collect();
    if !tagged.is_empty() {
        let words: Vec<String> = tagged.iter().map(|index| engine.label(*index).to_string()).collect();
        drop(engine);
        let code = build::quietly(global, &words, output)?;
        if code != 0 {
            return Ok(code);
        }
        engine = super::open(global)?;
    }
    let Some(lock) = Lock::read(&engine.root)? else { return Ok(0) };
    if !lock.disputed.is_empty() {
        let labels: Vec<&str> = lock.disputed.keys().map(String::as_str).collect();
        let failure = Failure::user(format!("{FILE} still has both sides of a merge, of {}", labels.join(", ")));
        return Err(failure.help("`effai build --lock` takes the side that fits, then `git add effai.lock`").into());
    }
    let behind = behind(&mut engine, &lock)?;
    let is_strict = engine.settings().always_lock;
    engine.close();
    if behind.is_empty() {
        return Ok(0);
    }
    let mut said: Vec<String> = behind.iter().take(TOLD_MAX).cloned().collect();
    if behind.len() > TOLD_MAX {
        said.push(format!("{} more", behind.len() - TOLD_MAX));
    }
    let text = format!("{FILE} is not of these recipes and files: {}", said.join(", "));
    let help = "`effai build --lock`, then `git add effai.lock`";
    if is_strict {
        return Err(Failure::target(text)
            .help(format!("{help}; `git commit --no-verify` commits all the same"))
            .into());
    }
    output.note(&format!("effai: {text}\n       {help}"));
    Ok(0)
}

/// Labels of the lock whose targets have another key now, or none before others have run; without parts.
fn behind(engine: &mut Engine, lock: &Lock) -> Result<Vec<String>, EngineError> {
    let locked: Vec<Index> = lock.claims.keys().filter_map(|label| engine.plan().find(label)).collect();
    let closure = engine.plan().closure(&locked);
    let judged = engine.judge_all(&closure)?;
    let mut labels = Vec::new();
    for index in locked {
        let label = engine.label(index).to_string();
        let is_claimed = judged[&index].key.is_some_and(|key| lock.claim(&label, &key).is_some());
        // What was measured elsewhere has another key here, and is what the commit says all the same.
        if !is_claimed && !is_implied(&label) && !engine.stands_on_measured(index) {
            labels.push(label);
        }
    }
    Ok(labels)
}

/// What the lock names goes to remotes first, so that whoever fetches the commits finds it there. What was never here others
/// have sent, or will.
fn pre_push(global: &Global, output: &Output) -> Result<u8, EngineError> {
    let engine = super::open(global)?;
    let lock = Lock::read(&engine.root)?.unwrap_or_default();
    let is_here = |label: &&String| !is_implied(label) && engine.plan().find(label).is_some();
    let labels: Vec<String> = lock.claims.keys().filter(is_here).cloned().collect();
    let takes = engine.settings().remotes.iter().any(|remote| remote.access == Access::ReadWrite);
    drop(engine);
    if labels.is_empty() || !takes {
        return Ok(0);
    }
    let code = push::these(global, labels, output)?;
    Ok(if code == Class::Target.exit_code() { 0 } else { code })
}

/// Adds what changed of the metrics, as trailers, to a message that somebody is about to write.
fn prepare_commit_msg(engine: &Engine, rest: &[String]) -> Result<u8, EngineError> {
    let Some(file) = rest.first() else { return Ok(0) };
    // A merge, a squash or an amended commit has its message already.
    if matches!(rest.get(1).map(String::as_str), Some("merge" | "squash" | "commit")) {
        return Ok(0);
    }
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let before = match git.head().map_err(Failure::from)? {
        Some(head) => history::at(&git, &head.commit)?,
        None => Lock::default(),
    };
    let Some(now) = git.staged(FILE).map_err(Failure::from)? else { return Ok(0) };
    let now = Lock::parse(&String::from_utf8_lossy(&now), FILE.as_ref()).map_err(Failure::from)?;
    let mut trailers = Vec::new();
    for (label, claim) in &now.claims {
        for (name, value) in &claim.metrics {
            let was = before.claims.get(label).and_then(|claim| claim.metrics.get(name));
            let told = match was {
                Some(was) if was == value => continue,
                Some(was) => format!("{TRAILER}: {label} {name} {value:.4} (was {was:.4})"),
                None => format!("{TRAILER}: {label} {name} {value:.4}"),
            };
            trailers.push(told);
        }
    }
    if !trailers.is_empty() {
        let add = trailers.iter().flat_map(|trailer| ["--trailer".to_owned(), trailer.clone()]);
        let program = Program::new("git").args(["interpret-trailers", "--in-place"]).args(add).args([file]);
        program.run_or(|_, said| Failure::environment(format!("git cannot add trailers: {}", said.trim())))?;
    }
    Ok(0)
}
