//! `effai env`: the Python environments of a project and of those within it.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Global, Output, build, open};
use crate::action::become_program;
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::format::uv_lock::{Collision, Pin, collisions, pins};
use crate::recipe::schema::{file_in, lock_of};
use crate::util::fs;
use crate::util::text::count;

/// Look after Python environments
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find packages that two environments' locks pin to different versions; ends with 1 where there are any
    Check,
    /// Open a shell with an environment's programs first on the search path; it is built before
    Shell {
        /// The environment
        target: String,
    },
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    match &args.command {
        Command::Check => check(global, output),
        Command::Shell { target } => shell(global, target, output),
    }
}

/// A lock and the environments made of it.
struct Lock {
    path: String,
    labels: Vec<String>,
    pins: Vec<Pin>,
}

fn check(global: &Global, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let mut labels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for index in (0..engine.plan().len()).filter(|index| is_environment(&engine, *index)) {
        let decl = engine.decl(index)?;
        let path = file_in(&decl.base, &lock_of(&decl.fields, "project"));
        labels.entry(path).or_default().push(engine.label(index).to_string());
    }
    let locks = labels.into_iter().map(|(path, labels)| read(&engine.root, path, labels));
    let locks = locks.collect::<Result<Vec<Lock>, Failure>>()?;
    let found = collisions(&locks.iter().map(|lock| lock.pins.clone()).collect::<Vec<_>>());
    found.iter().for_each(
        |collision| if output.json { json(collision, &locks, output) } else { tell(collision, &locks, output) },
    );
    let end = match found.len() {
        0 => "no two of them disagree".to_owned(),
        n => format!("{} pinned to different versions", count(n, "package")),
    };
    output.note(&format!("{}: {end}", count(locks.len(), "lock")));
    Ok(u8::from(!found.is_empty()))
}

fn is_environment(engine: &Engine, index: usize) -> bool {
    engine.plan().kind(index).schema().name == "environment"
}

fn read(root: &Path, path: String, labels: Vec<String>) -> Result<Lock, Failure> {
    let text = fs::read_text(&root.join(&path)).map_err(|error| match error.is_missing() {
        true => Failure::user(format!("there is no file `{path}`")).help("`uv lock` in its directory writes it"),
        false => error.into(),
    })?;
    let pins = pins(&text).map_err(|why| {
        Failure::user(format!("{path} is no lock of uv: {why}")).help("`uv lock` in its directory writes it anew")
    })?;
    Ok(Lock { path, labels, pins })
}

fn tell(collision: &Collision, locks: &[Lock], output: &Output) {
    output.line(&format!("{} is pinned to different versions", collision.package));
    for (i, pin) in &collision.pins {
        let place = format!("{}:{}", locks[*i].path, pin.line);
        output.line(&format!("  {:<12} {place}  ({})", pin.version, locks[*i].labels.join(", ")));
    }
}

fn json(collision: &Collision, locks: &[Lock], output: &Output) {
    let pin = |(i, pin): &(usize, Pin)| {
        serde_json::json!({
            "lock": locks[*i].path, "line": pin.line, "version": pin.version, "environments": locks[*i].labels,
        })
    };
    let pins: Vec<_> = collision.pins.iter().map(pin).collect();
    output.object(&serde_json::json!({"version": 1, "package": collision.package, "pins": pins}));
}

fn shell(global: &Global, target: &str, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let chosen = engine.select(&[target.to_owned()], &[])?;
    let [index] = chosen[..] else {
        let message = format!("`{target}` means {} targets", chosen.len());
        return Err(Failure::user(message).help("name one environment").into());
    };
    let label = engine.label(index).to_string();
    if !is_environment(&engine, index) {
        let kind = engine.plan().kind(index).schema().name;
        return Err(Failure::user(format!("{label} is a `{kind}`, not an environment")).into());
    }
    let dir = engine.root.join("out").join(&label);
    engine.close();
    let code = build::quietly(global, std::slice::from_ref(&label), output)?;
    if code != 0 {
        return Ok(code);
    }
    let path = std::env::join_paths([dir.join("bin")].into_iter().chain(std::env::split_paths(&crate::env::path())))
        .map_err(|e| Failure::environment(format!("cannot put {} on the search path: {e}", dir.display())))?;
    output.note(&format!("{label}: `exit` leaves it"));
    let vars = [("PATH", path), ("VIRTUAL_ENV", dir.into()), ("VIRTUAL_ENV_PROMPT", label.into())];
    Err(become_program(&crate::env::shell(), &vars).into())
}
