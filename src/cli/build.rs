//! `effai build`

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Global, Output, directory, options, record, revision};
use crate::action::Cancel;
use crate::engine::claims::Held;
use crate::engine::{Engine, EngineError, Options};
use crate::event::{Event, Outcome, Summary, Verdict};
use crate::failure::Failure;
use crate::plan::Index;
use crate::recipe::policy::Policy;
use crate::schedule::{BuildOptions, Until, build, check};
use crate::ui::{self, Watcher};
use crate::watch::{BuildQuestion, Fresh};

/// Make targets: run what is stale, restore what some store has
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Labels, globs over labels, tag:WORD, paths below out/, or LABEL@REV, which is what a commit's lock names; without any,
    /// the project's `default` or all
    targets: Vec<String>,
    #[command(flatten)]
    flags: Flags,
    /// Go on with what does not depend on a failure
    #[arg(short, long)]
    keep_going: bool,
    #[command(flatten)]
    held: HeldFlags,
}

/// What the build has to do with effai.lock.
#[derive(Debug, Default, clap::Args)]
struct HeldFlags {
    /// Afterwards write what was built into effai.lock
    #[arg(long, conflicts_with_all = ["locked", "frozen", "dry_run", "profile"])]
    lock: bool,
    /// Refuse to begin if any key is not the one in effai.lock, and any artifact that is not the one there
    #[arg(long, conflicts_with_all = ["profile", "force"])]
    locked: bool,
    /// As --locked, and run nothing: only restore
    #[arg(long, conflicts_with_all = ["profile", "force", "no_cache", "check"])]
    frozen: bool,
}

impl HeldFlags {
    fn held(&self) -> Held {
        match (self.frozen, self.locked) {
            (true, _) => Held::Frozen,
            (_, true) => Held::Locked,
            _ => Held::No,
        }
    }
}

/// What every command takes that builds once.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Leave these out: a label, glob or tag:WORD; what another target needs is made all the same
    #[arg(long, value_name = "TARGET")]
    pub(super) exclude: Vec<String>,
    /// Actions at once, and threads for one that uses the whole machine
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Say what would run and why, and run nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Begin nothing after TIME, nor what would end later than that going by its last run: `18:30`, or `2h30m` from now
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run",
          value_parser = |text: &str| Until::read(text, &jiff::Zoned::now()))]
    until: Option<Until>,
    /// Run the named targets whatever their state; with `all`, also everything under them
    #[arg(short, long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "named", require_equals = true,
          value_parser = ["named", "all"])]
    force: Option<String>,
    /// For each target that runs, say which fact changed
    #[arg(long)]
    explain: bool,
    /// Do not use artifacts of other runs; what is made is still kept
    #[arg(long)]
    no_cache: bool,
    /// What to do with the store and with remotes: read (r), write (w); by default local:rw,remote:r, or what effai.kdl says
    #[arg(long, value_name = "POLICY", conflicts_with = "no_cache", value_parser = |text: &str| text.parse::<Policy>())]
    cache: Option<Policy>,
    /// Then run the named targets once more, compare every file, and name the first difference
    #[arg(long, conflicts_with = "dry_run")]
    check: bool,
    /// How to show progress; `auto` is bars on a terminal, else a line every ten seconds
    #[arg(long, value_enum, default_value_t = Progress::Auto)]
    progress: Progress,
    /// Whose output to show: of every target, of what runs, the end of what fails, or nobody's
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t = Shown::Failed)]
    output: Shown,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Progress {
    Auto,
    Bar,
    Counter,
    None,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Shown {
    All,
    New,
    Failed,
    None,
}

impl Progress {
    fn settled(self) -> Result<ui::Progress, Failure> {
        let terminal = std::io::stderr().is_terminal();
        match self {
            Progress::Bar if !terminal => Err(Failure::user("`--progress bar` needs a terminal on standard error")
                .help("`--progress counter` says a line every ten seconds")),
            Progress::Auto if !terminal => Ok(ui::Progress::Counter),
            Progress::Auto | Progress::Bar => Ok(ui::Progress::Bar),
            Progress::Counter => Ok(ui::Progress::Counter),
            Progress::None => Ok(ui::Progress::None),
        }
    }
}

impl From<Shown> for ui::Shown {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::All => ui::Shown::All,
            Shown::New => ui::Shown::New,
            Shown::Failed => ui::Shown::Failed,
            Shown::None => ui::Shown::None,
        }
    }
}

impl Flags {
    /// None of them: what a command uses that makes targets on the way to something else.
    pub(super) fn none() -> Self {
        Self {
            exclude: Vec::new(),
            jobs: None,
            dry_run: false,
            until: None,
            force: None,
            explain: false,
            no_cache: false,
            cache: None,
            check: false,
            progress: Progress::Auto,
            output: Shown::Failed,
        }
    }

    /// For what is made on the way: as many at once, shown alike, and nothing else of these.
    pub(super) fn on_the_way(&self) -> Self {
        Self { jobs: self.jobs, cache: self.cache, progress: self.progress, output: self.output, ..Self::none() }
    }

    /// Whether nothing is to run.
    pub(super) fn only_says(&self) -> bool {
        self.dry_run
    }

    /// How to build, for these words.
    pub(super) fn options(&self, asked: &[String]) -> BuildOptions {
        BuildOptions {
            force: self.force.is_some(),
            force_all: self.force.as_deref() == Some("all"),
            policy: self.cache.or(self.no_cache.then_some(Policy::NO_CACHE)),
            until: self.until.clone(),
            asked: asked.to_vec(),
            ..BuildOptions::new(jobs(self.jobs))
        }
    }

    /// Who shows what happens.
    pub(super) fn watcher(&self, output: &Output, root: &Path) -> Result<Box<dyn Watcher>, Failure> {
        watcher(output, self.explain, self.progress, self.output, root)
    }

    /// Builds the chosen targets, once more to compare where that is asked; returns the exit code.
    pub(super) fn make(
        &self,
        engine: &mut Engine,
        chosen: &[Index],
        options: &BuildOptions,
        watcher: &mut dyn Watcher,
    ) -> Result<u8, EngineError> {
        let cancel = Cancel::default();
        let ask = cancel.clone();
        let interrupted = watch_signals(move || ask.ask())?;
        let tell = &mut |event: &Event| watcher.see(event);
        let result = build(engine, chosen, options, &cancel, tell).and_then(|summary| {
            let is_good = summary.failed + summary.late == 0;
            let is_checked = is_good && self.check && !cancel.is_asked();
            if is_checked { check(engine, chosen, options, &cancel, tell) } else { Ok(is_good) }
        });
        watcher.end();
        let is_good = result?;
        if interrupted.load(Ordering::SeqCst) {
            return Ok(130);
        }
        Ok(watcher.worst().map_or(u8::from(!is_good), |class| class.exit_code()))
    }
}

impl Args {
    /// What to ask a watch of the project; none where a build would do more than look.
    fn question(&self, global: &Global, output: &Output) -> Result<Option<BuildQuestion>, EngineError> {
        let flags = &self.flags;
        let only_looks = !(flags.dry_run
            || flags.force.is_some()
            || flags.explain
            || flags.no_cache
            || flags.cache.is_some()
            || flags.check
            || flags.until.is_some()
            || self.held.lock
            || self.held.held() != Held::No
            || global.backend.is_some()
            || global.sandbox == "off");
        if !only_looks || !flags.exclude.is_empty() {
            return Ok(None);
        }
        let dir = directory(global)?;
        Ok(BuildQuestion::new(&dir, global.profile.as_deref(), &self.targets, self.tells_fresh(output)))
    }

    fn tells_fresh(&self, output: &Output) -> bool {
        output.json || output.verbose || matches!(self.flags.output, Shown::All)
    }
}

/// Makes targets for a command that then uses them: says what runs, and nothing where nothing does.
pub(super) fn quietly(global: &Global, targets: &[String], output: &Output) -> Result<u8, EngineError> {
    let args = Args { targets: targets.to_vec(), flags: Flags::none(), keep_going: false, held: HeldFlags::default() };
    run(global, &args, &Output { json: false, quiet: true, verbose: output.verbose })
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let begin = Instant::now();
    let flags = &args.flags;
    if let Some(question) = args.question(global, output)?
        && let Some(fresh) = question.ask()
    {
        let watcher = flags.watcher(output, question.root())?;
        tell_fresh(fresh, begin, watcher);
        return Ok(0);
    }
    let held = args.held.held();
    let mut engine = Engine::open(&directory(global)?, &Options { held, ..options(global) })?;
    let words = if args.targets.is_empty() { engine.default_words().to_vec() } else { args.targets.clone() };
    let chosen = engine.select_at(&words, &flags.exclude)?;
    // What is named at a revision here and not in a recipe is held to that revision's lock, and in no other.
    let lasting: Vec<Index> = chosen.iter().copied().filter(|index| !engine.is_passing(*index)).collect();
    if held != Held::No {
        let closure = engine.plan().closure(&lasting);
        engine.hold_to_lock(&closure)?;
    }
    if flags.only_says() {
        return dry_run(&mut engine, &chosen, flags, output);
    }
    let code = revision::make(global, &mut engine, &chosen, flags, output)?;
    if code != 0 {
        return Ok(code);
    }
    let build_options = BuildOptions {
        keep_going: args.keep_going,
        tell_fresh: args.tells_fresh(output),
        ..flags.options(&args.targets)
    };
    let mut watcher = flags.watcher(output, &engine.root)?;
    let code = flags.make(&mut engine, &chosen, &build_options, &mut *watcher)?;
    let always = engine.settings().always_lock && held == Held::No && global.profile.is_none();
    if args.held.lock || always {
        record::run(&mut engine, &lasting, output)?;
    }
    engine.close();
    Ok(code)
}

/// Tells what a build would that finds nothing to do.
fn tell_fresh(fresh: Fresh, begin: Instant, mut watcher: Box<dyn Watcher>) {
    watcher.see(&Event::Planned { targets: fresh.targets });
    for label in fresh.labels {
        watcher.see(&Event::Finished { label, outcome: Outcome::Fresh });
    }
    let wall_ms = begin.elapsed().as_millis() as u64;
    watcher.see(&Event::Ended(Summary { fresh: fresh.targets, wall_ms, ..Summary::default() }));
    watcher.end();
}

/// Says what building the chosen targets would run.
pub(super) fn dry_run(
    engine: &mut Engine,
    chosen: &[Index],
    flags: &Flags,
    output: &Output,
) -> Result<u8, EngineError> {
    let closure = engine.plan().closure(chosen);
    let judged = engine.judge_all(&closure)?;
    let mut runs = 0;
    for (index, judged) in &judged {
        let forced = flags.force.as_deref() == Some("all") || (flags.force.is_some() && chosen.contains(index));
        let (word, reasons): (_, Vec<String>) = match judged.verdict {
            _ if forced => ("run", vec!["forced".into()]),
            Verdict::Fresh => continue,
            Verdict::Cached => ("restore", vec![]),
            Verdict::Stale => ("run", judged.reasons.iter().map(ToString::to_string).collect()),
            Verdict::Waits => ("maybe", judged.reasons.iter().map(ToString::to_string).collect()),
        };
        runs += usize::from(word != "restore");
        if output.json {
            output.object(&serde_json::json!({
                "version": 1, "label": engine.label(*index), "would": word, "reasons": reasons,
            }));
        } else {
            output.line(&format!("{word:<8} {}  {}", engine.label(*index), reasons.join("; ")));
        }
    }
    output.note(&format!("{runs} of {} would run", crate::util::text::count(judged.len(), "target")));
    Ok(0)
}

/// How many actions may run at once.
pub(super) fn jobs(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Who shows what happens.
pub(super) fn watcher(
    output: &Output,
    explain: bool,
    progress: Progress,
    shown: Shown,
    root: &Path,
) -> Result<Box<dyn Watcher>, Failure> {
    if output.json {
        return Ok(Box::new(ui::Json));
    }
    Ok(Box::new(ui::Lines::new(ui::Settings {
        quiet: output.quiet,
        verbose: output.verbose,
        explain,
        progress: progress.settled()?,
        shown: shown.into(),
        root: root.to_owned(),
    })))
}

/// The first Ctrl-C asks what runs to end; the second ends this process at once.
pub(super) fn watch_signals(ask: impl Fn() + Send + 'static) -> Result<Arc<AtomicBool>, EngineError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|e| Failure::environment(format!("cannot listen for signals: {e}")))?;
    let flag = interrupted.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
            ask();
        }
    });
    Ok(interrupted)
}
