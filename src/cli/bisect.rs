//! `effai bisect`

use std::collections::BTreeMap;

use super::{Global, Output, build, open, options};
use crate::action::Cancel;
use crate::engine::{Engine, EngineError};
use crate::failure::Failure;
use crate::git::{Git, Version};
use crate::lock::history;
use crate::schedule::{self, BuildOptions};
use crate::ui::style;
use crate::util::fs;
use crate::util::text::count;

/// Find the commit that made a metric worse, building only what no store has
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The metric's name, as effai.lock has it
    metric: String,
    /// A revision where it is good
    #[arg(long, value_name = "REV")]
    good: String,
    /// A later one where it is bad
    #[arg(long, value_name = "REV", default_value = "HEAD")]
    bad: String,
    /// Whose metric, where several targets have one of that name
    #[arg(long, value_name = "LABEL")]
    target: Option<String>,
    /// What divides good from bad; by default the middle between the two
    #[arg(long, value_name = "VALUE")]
    threshold: Option<f64>,
}

/// What a commit's metric is, and how that was found out.
#[derive(Clone, Copy, Debug)]
struct Found {
    value: f64,
    /// Actions that ran for it; none where the commit's lock says it.
    ran: Option<usize>,
}

struct Bisect<'a> {
    global: &'a Global,
    git: Git,
    label: String,
    metric: &'a str,
    /// By commit; an error is why one cannot be judged.
    found: BTreeMap<String, Result<Found, Failure>>,
}

pub(super) fn run(global: &Global, args: &Args, output: &Output) -> Result<u8, EngineError> {
    let engine = open(global)?;
    let git = Git::of(&engine.root).map_err(Failure::from)?;
    let label = whose(&git, args)?;
    let (good, bad) = (git.version(&args.good).map_err(Failure::from)?, git.version(&args.bad).map_err(Failure::from)?);
    let line = git.line(&good.commit, &bad.commit).map_err(Failure::from)?;
    drop(engine);
    let mut bisect = Bisect { global, git, label, metric: &args.metric, found: BTreeMap::new() };
    let (best, worst) = (bisect.judge(&good)?.value, bisect.judge(&bad)?.value);
    let middle = args.threshold.unwrap_or(f64::midpoint(best, worst));
    let is_good = |value: f64| (value > middle) == (best > middle) || value == best;
    if is_good(worst) {
        let text =
            format!("{} of {} is {best} at {} and {worst} at {}", args.metric, bisect.label, good.short(), bad.short());
        return Err(Failure::user(text).help("name two commits between which it got worse, or a --threshold").into());
    }
    let tell = |version: &Version, found: &Result<Found, Failure>, left: usize| {
        let what = match found {
            Ok(Found { value, ran }) => {
                let how = ran.map_or_else(|| "by its lock".to_owned(), |ran| format!("{} ran", count(ran, "action")));
                let word = if is_good(*value) { style::green("good") } else { style::red("bad ") };
                format!("{word} {value:.6}  {how}")
            }
            Err(failure) => format!("cannot be judged: {}", failure.message),
        };
        output.note(&format!("{}  {what}  {left} left  {}", style::yellow(version.short()), version.title));
    };
    // Invariant: what is at `low` is good, at `high` bad; `line` has the good one first.
    let (mut low, mut high) = (0, line.len() - 1);
    while high - low > 1 {
        // The middle one, or of those that can be judged the next to it.
        let half = low + (high - low) / 2;
        let mut between: Vec<usize> = (low + 1..high).collect();
        between.sort_by_key(|at| at.abs_diff(half));
        let mut judged = None;
        for at in between {
            let found = bisect.look(&line[at]);
            tell(&line[at], &found, high - low - 1);
            if let Ok(found) = found {
                judged = Some((at, found.value));
                break;
            }
        }
        match judged {
            Some((at, value)) if is_good(value) => low = at,
            Some((at, _)) => high = at,
            None => break,
        }
    }
    let first = &line[high];
    let unsure: Vec<&Version> = line[low + 1..high].iter().collect();
    let value = bisect.judge(first)?.value;
    let before = bisect.judge(&line[low])?.value;
    let ran: usize = bisect.found.values().flatten().filter_map(|found| found.ran).sum();
    if output.json {
        output.object(&serde_json::json!({
            "version": 1, "label": bisect.label, "metric": args.metric, "first-bad": first, "value": value,
            "before": before, "not-judged": unsure, "judged": bisect.found.len(), "ran": ran,
        }));
        return Ok(0);
    }
    if unsure.is_empty() {
        output.line(&format!("{} is the first bad commit", first.commit));
    } else {
        output.line(&format!(
            "{} or one of {} before it that cannot be judged",
            first.commit,
            count(unsure.len(), "commit")
        ));
    }
    output.line(&format!("  {}  {}  {}", first.date(), first.author, first.title));
    output.line(&format!("  {} of {}: {before:.6} before, {value:.6} since", args.metric, bisect.label));
    output.note(&format!("{} judged, {} ran", count(bisect.found.len(), "commit"), count(ran, "action")));
    Ok(0)
}

/// The target whose metric is meant: that of the good revision's lock that has one of this name.
fn whose(git: &Git, args: &Args) -> Result<String, EngineError> {
    if let Some(label) = &args.target {
        return Ok(label.clone());
    }
    let mut lock = history::at(git, &args.good)?;
    if lock.claims.is_empty() {
        lock = history::at(git, &args.bad)?;
    }
    let having = lock.claims.iter().filter(|(_, claim)| claim.metrics.contains_key(&args.metric));
    let labels: Vec<&str> = having.map(|(label, _)| label.as_str()).collect();
    match labels[..] {
        [one] => Ok(one.to_owned()),
        [] => {
            let names: Vec<&String> = lock.claims.values().flat_map(|claim| claim.metrics.keys()).collect();
            let some = names.iter().take(8).map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            let failure = Failure::user(format!("no target of {}'s lock has a metric `{}`", args.good, args.metric));
            let help = if names.is_empty() {
                "`--target LABEL` says whose it is".into()
            } else {
                format!("there are: {some}")
            };
            Err(failure.help(help).into())
        }
        _ => {
            let failure = Failure::user(format!("{} have a metric `{}`", labels.join(", "), args.metric));
            Err(failure.help("`--target LABEL` says whose is meant").into())
        }
    }
}

impl Bisect<'_> {
    fn judge(&mut self, version: &Version) -> Result<Found, Failure> {
        self.look(version).map_err(|failure| failure.within(version.short()))
    }

    fn look(&mut self, version: &Version) -> Result<Found, Failure> {
        if let Some(found) = self.found.get(&version.commit) {
            return found.clone();
        }
        let found = self.find_out(version);
        self.found.insert(version.commit.clone(), found.clone());
        found
    }

    /// What the commit's lock says, else what a build of it gives: in a directory of its own, with the same store.
    fn find_out(&self, version: &Version) -> Result<Found, Failure> {
        let lock = history::at(&self.git, &version.commit)?;
        if let Some(value) = lock.claims.get(&self.label).and_then(|claim| claim.metrics.get(self.metric)) {
            return Ok(Found { value: *value, ran: None });
        }
        let dir = fs::at("make a directory in", &std::env::temp_dir(), tempfile::tempdir())?;
        let root = self.git.lay_out(&version.commit, dir.path())?;
        let plain = |error: EngineError| match error {
            EngineError::Failure(failure) => failure,
            other => Failure::target(crate::failure::chain(&other)),
        };
        let mut engine = Engine::open(&root, &options(self.global)).map_err(plain)?;
        let none = || Failure::target(format!("it declares no {}", self.label));
        let index = engine.find(&self.label).ok_or_else(none)?;
        let options = BuildOptions::new(build::jobs(None));
        let mut failed = None;
        let tell = &mut |event: &crate::event::Event| {
            if let crate::event::Event::Finished { outcome: crate::event::Outcome::Failed { failure, .. }, label } =
                event
            {
                failed.get_or_insert(failure.clone().within(label));
            }
        };
        let summary = schedule::build(&mut engine, &[index], &options, &Cancel::default(), tell)?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        let key = engine.state(&engine.label(index))?.map(|state| state.key);
        let row = key.map_or(Ok(None), |key| engine.store.index.get(&key))?;
        let value = row.and_then(|row| row.metrics.get(self.metric).copied());
        let none = || Failure::target(format!("{} gave no `{}`", self.label, self.metric));
        Ok(Found { value: value.ok_or_else(none)?, ran: Some(summary.built) })
    }
}
