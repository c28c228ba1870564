//! `effai watch`

use super::build::{self, Progress, Shown};
use super::{Global, Output, directory, options, report};
use crate::action::Cancel;
use crate::engine::EngineError;
use crate::event::Event;
use crate::schedule::BuildOptions;
use crate::ui::Watcher;
use crate::watch::{Host, Watch};

/// Build, and build again whenever a file changes that the targets read
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, or paths below out/; without any, the project's `default` or all
    targets: Vec<String>,
    /// Actions at once, and threads for one that uses the whole machine
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// For each target that runs, say which fact changed
    #[arg(long)]
    explain: bool,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let cancel = Cancel::default();
    let build = BuildOptions {
        keep_going: true,
        tell_fresh: output.verbose,
        asked: args.targets.clone(),
        ..BuildOptions::new(build::jobs(args.jobs))
    };
    let (dir, words) = (directory(global)?, args.targets.clone());
    let mut watch = Watch::new(&dir, options(global), words, build, cancel.clone())?;
    let wake = watch.waker();
    build::watch_signals(move || {
        cancel.ask();
        wake();
    })?;
    let watcher = build::watcher(output, args.explain, Progress::Auto, Shown::Failed, watch.root())?;
    let mut host = Terminal { watcher, output };
    let interrupted = watch.run(&mut host);
    host.watcher.end();
    Ok(if interrupted? { 130 } else { 0 })
}

struct Terminal<'a> {
    watcher: Box<dyn Watcher>,
    output: &'a Output,
}

impl Host for Terminal<'_> {
    fn see(&mut self, event: &Event) {
        self.watcher.see(event);
        // Who reads the lines waits for them.
        if let Event::Ended(_) | Event::Watching { .. } = event {
            self.watcher.end();
        }
    }

    fn cannot(&mut self, error: &EngineError) {
        report(error, self.output);
    }
}
