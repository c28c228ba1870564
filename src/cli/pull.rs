//! `effai pull`

use std::sync::atomic::Ordering;

use super::build::{Progress, Shown, jobs, watch_signals, watcher};
use super::{Global, Output, open};
use crate::action::Cancel;
use crate::engine::EngineError;
use crate::event::{Event, Outcome};
use crate::failure::Class;
use crate::recipe::policy::Policy;
use crate::schedule::{BuildOptions, build};

/// Bring what a build of these targets would restore from remotes into the store, and run nothing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, tag:WORD, or LABEL@REV; without any, the project's `default` or all
    targets: Vec<String>,
    /// Only from this remote
    #[arg(long, value_name = "NAME")]
    remote: Option<String>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let mut engine = open(global)?;
    engine.remotes(args.remote.as_deref(), false)?;
    let words = if args.targets.is_empty() { engine.default_words().to_vec() } else { args.targets.clone() };
    let chosen = engine.select_at(&words, &[])?;
    let options = BuildOptions {
        policy: Some(Policy { writes_remote: false, ..Policy::default() }),
        remote: args.remote.clone(),
        only_brings: true,
        keep_going: true,
        tell_fresh: output.json || output.verbose,
        asked: args.targets.clone(),
        ..BuildOptions::new(jobs(None))
    };
    let mut watcher = watcher(output, false, Progress::Auto, Shown::Failed, &engine.root)?;
    let cancel = Cancel::default();
    let ask = cancel.clone();
    let interrupted = watch_signals(move || ask.ask())?;
    let (mut is_missing, mut is_left_out) = (false, false);
    let made = build(&mut engine, &chosen, &options, &cancel, &mut |event| {
        is_missing |= matches!(event, Event::Finished { outcome: Outcome::Missing { .. }, .. });
        is_left_out |= matches!(event, Event::RemoteLeftOut { .. });
        watcher.see(event);
    });
    watcher.end();
    made?;
    engine.close();
    Ok(match watcher.worst() {
        _ if interrupted.load(Ordering::SeqCst) => 130,
        Some(class) => class.exit_code(),
        None if is_missing && is_left_out => Class::Environment.exit_code(),
        None => u8::from(is_missing),
    })
}
