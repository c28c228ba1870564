//! One line for each thing that happens, and inline progress for what takes longer than a second.
//!
//! Never the alternate screen. Without a terminal there are only lines, and after a while a counter every
//! so often, so that who reads the log of a long build sees that it goes on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Watcher, style};
use crate::event::{ActionEvent, Event, Outcome, Repeat, Summary, Tally, Verdict};
use crate::failure::{Class, Failure};
use crate::plan::Label;
use crate::record::log_file;
use crate::util::text::{bytes, count, duration};

/// Progress appears for actions that take longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// Actions that have a progress line at once; the others are in the count.
const BARS_MAX: usize = 8;

/// The counter is first said after this long, and then again after as long.
const COUNTER_EVERY: Duration = Duration::from_secs(10);

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Lines at the bottom of the terminal that come and go.
    Bar,
    /// A line every so often.
    Counter,
    /// Not at all.
    #[default]
    None,
}

/// Whose whole output is shown when they end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Of every target, also from past runs.
    All,
    /// Of every action that runs.
    New,
    /// The end of what a failed action said.
    #[default]
    Failed,
    /// Nobody's.
    None,
}

/// How much to say.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Only failures.
    pub quiet: bool,
    /// Also what is fresh, and the logs.
    pub verbose: bool,
    /// Why each target runs.
    pub explain: bool,
    /// How progress is shown.
    pub progress: Progress,
    /// Whose output is shown.
    pub shown: Shown,
    /// The project's root, under which outputs are kept.
    pub root: PathBuf,
}

/// Lines on stderr.
pub struct Lines {
    settings: Settings,
    bars: MultiProgress,
    running: BTreeMap<Label, Running>,
    /// How far the whole build is.
    outlook: Option<ProgressBar>,
    counted: Instant,
    failures: Vec<(Label, Failure, Option<String>, Option<String>)>,
}

struct Running {
    since: Instant,
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
}

/// A stretch of progress with one unit and one total: speed and time left are of it.
struct Phase {
    unit: String,
    total: Option<u64>,
    since: Instant,
    /// What was done already when it was first heard of.
    from: u64,
    last: u64,
}

/// `, 12.5/s, 40 s left`; nothing before there is something to go by.
fn pace(phase: &Phase, elapsed: Duration) -> String {
    let done = phase.last - phase.from;
    if done == 0 || elapsed < Duration::from_millis(500) {
        return String::new();
    }
    let rate = done as f64 / elapsed.as_secs_f64();
    let speed = match phase.unit.as_str() {
        "bytes" => format!(", {}/s", bytes(rate as u64)),
        _ if rate < 10.0 => format!(", {rate:.1}/s"),
        _ => format!(", {rate:.0}/s"),
    };
    let left = phase.total.map(|total| (total.saturating_sub(phase.last) as f64 / rate).ceil() as u64);
    let left = match left {
        Some(0) | None => String::new(),
        Some(seconds @ 1..60) => format!(", {seconds} s left"),
        Some(seconds) => format!(", {} left", duration(seconds * 1000)),
    };
    format!("{speed}{left}")
}

/// `12 of 340 done, 2 running, about 3 min left`.
fn outlook(done: usize, to_run: usize, running: usize, left_ms: Option<u64>) -> String {
    let left = match left_ms {
        None => String::new(),
        Some(0..1_000) => ", almost done".into(),
        Some(ms @ 1_000..60_000) => format!(", about {} s left", ms.div_ceil(1000)),
        Some(ms @ 60_000..3_600_000) => format!(", about {} min left", ms.div_ceil(60_000)),
        Some(ms) => format!(", about {} left", duration(ms)),
    };
    format!("{done} of {to_run} done, {running} running{left}")
}

/// `12 passed (10 of them cached), 1 failed, 1 skipped`.
fn tally(tally: &Tally) -> String {
    let cached = match tally.cached {
        0 => String::new(),
        1 if tally.passed == 1 => " (cached)".into(),
        n if tally.passed == n => " (all of them cached)".into(),
        n => format!(" ({n} of them cached)"),
    };
    let counts = [(tally.failed, "failed"), (tally.skipped, "skipped")];
    let others: String = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!(", {n} {word}")).collect();
    format!("{} passed{cached}{others}", tally.passed)
}

impl Lines {
    /// Begins to watch.
    pub fn new(settings: Settings) -> Self {
        let target = match settings.progress {
            Progress::Bar if !settings.quiet => ProgressDrawTarget::stderr_with_hz(10),
            _ => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        let (running, failures) = (BTreeMap::new(), Vec::new());
        Self { settings, bars, running, outlook: None, counted: Instant::now(), failures }
    }

    fn say(&self, text: &str) {
        use std::io::Write;
        self.bars.suspend(|| {
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }

    fn said(&mut self, label: &Label, what: &ActionEvent) {
        match what {
            ActionEvent::Progress { what, done, total, unit } => self.progress(label, what, *done, *total, unit),
            ActionEvent::Warning { text, help } => {
                self.say(&format!("{} {label}: {text}", style::yellow("warning")));
                if let Some(help) = help {
                    self.say(&format!("         {}", style::cyan(help)));
                }
            }
            ActionEvent::Again { times, times_max, failure, wait_ms } => {
                self.say(&format!("{} {label}: {failure}", style::yellow("warning")));
                let wait = duration(*wait_ms);
                self.say(&format!("         {}", style::cyan(&format!("again in {wait}, {times} of {times_max}"))));
            }
            ActionEvent::Log { text } if self.settings.verbose => self.say(&style::dim(&format!("{label}: {text}"))),
            ActionEvent::Metric { name, step, value } if self.settings.verbose => {
                let step = step.map(|s| format!(" at {s}")).unwrap_or_default();
                self.say(&style::dim(&format!("{label}: {name}{step} = {value:.5}")));
            }
            _ => {}
        }
    }

    fn progress(&mut self, label: &Label, what: &str, done: u64, total: Option<u64>, unit: &str) {
        let Some(running) = self.running.get_mut(label) else { return };
        let phase = Phase { unit: unit.to_owned(), total, since: Instant::now(), from: done, last: done };
        match &mut running.phase {
            Some(now) if now.unit == unit && now.total == total && now.last <= done => now.last = done,
            now => *now = Some(phase),
        }
        if self.settings.quiet || running.since.elapsed() < PATIENCE {
            return;
        }
        let Some(bar) = self.bar(label) else { return };
        let template = match total {
            Some(_) => "        {prefix} {bar:16.green/dim} {wide_msg}",
            None => "        {prefix} {wide_msg}",
        };
        if let Ok(bar_style) = ProgressStyle::with_template(template) {
            bar.set_style(bar_style.progress_chars("━━─"));
        }
        bar.set_prefix(label.to_string());
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
        let amount = |n: u64| if unit == "bytes" { bytes(n) } else { HumanCount(n).to_string() };
        let of = total.map(|total| format!("/{}", amount(total))).unwrap_or_default();
        let noun = if unit == "bytes" { String::new() } else { format!(" {unit}") };
        let phase = self.running.get(label).and_then(|running| running.phase.as_ref());
        let pace = phase.map(|p| pace(p, p.since.elapsed())).unwrap_or_default();
        bar.set_message(format!("{}{of}{noun}{pace}  {what}", amount(done)));
    }

    /// The progress line of an action, above the build's; none if there are enough already.
    fn bar(&mut self, label: &Label) -> Option<ProgressBar> {
        let shown = self.running.values().filter(|running| running.bar.is_some()).count();
        let running = self.running.get_mut(label)?;
        if running.bar.is_none() && shown < BARS_MAX {
            let bar = ProgressBar::no_length();
            running.bar = Some(match &self.outlook {
                Some(outlook) => self.bars.insert_before(outlook, bar),
                None => self.bars.add(bar),
            });
        }
        running.bar.clone()
    }

    /// Says how far the build is, as a line that stays at the bottom or as one more line of a log.
    fn look_ahead(&mut self, text: &str) {
        if self.settings.quiet {
            return;
        }
        if self.settings.progress == Progress::Counter && self.counted.elapsed() >= COUNTER_EVERY {
            self.counted = Instant::now();
            let mut longest: Vec<(&Instant, &Label)> = self.running.iter().map(|(l, r)| (&r.since, l)).collect();
            longest.sort();
            let longest = longest
                .first()
                .map(|(since, label)| format!("; {label} for {}", duration(since.elapsed().as_millis() as u64)));
            return self.say(&style::dim(&format!("{text}{}", longest.unwrap_or_default())));
        }
        if self.settings.progress != Progress::Bar {
            return;
        }
        let outlook = self.outlook.get_or_insert_with(|| {
            let plain = ProgressStyle::with_template("{wide_msg}").expect("a plain template");
            self.bars.add(ProgressBar::no_length().with_style(plain))
        });
        outlook.set_message(style::dim(text));
        // What says nothing of its progress shows at least for how long it has been running.
        let silent: Vec<Label> = self
            .running
            .iter()
            .filter(|(_, r)| r.phase.is_none() && r.since.elapsed() >= PATIENCE)
            .map(|(label, _)| label.clone())
            .collect();
        for label in silent {
            let since = self.running[&label].since;
            let Some(bar) = self.bar(&label) else { break };
            bar.set_style(ProgressStyle::with_template("        {prefix} {wide_msg}").expect("a plain template"));
            bar.set_prefix(label.to_string());
            bar.set_message(style::dim(&duration(since.elapsed().as_secs() * 1000)));
        }
    }

    /// The kept output of an action, whole.
    fn show_output(&self, label: &Label) {
        let Ok(text) = crate::util::fs::read(&log_file(&self.settings.root, label)) else { return };
        for line in String::from_utf8_lossy(&text).lines() {
            self.say(&format!("{} {line}", style::dim(&format!("{label}:"))));
        }
    }

    fn finished(&mut self, label: &Label, outcome: &Outcome) {
        let ran = matches!(outcome, Outcome::Built { .. } | Outcome::Failed { .. } | Outcome::Cancelled);
        if self.settings.shown == Shown::All || (self.settings.shown == Shown::New && ran) {
            self.show_output(label);
        }
        self.failures.retain(|(failed, ..)| failed != label);
        self.clear(label);
        let line = match outcome {
            Outcome::Fresh if self.settings.verbose => format!("{}   {label}", style::green("fresh")),
            Outcome::Fresh => return,
            Outcome::Restored { .. } if self.settings.quiet => return,
            Outcome::Restored { .. } => format!("{} {label}", style::green("restore")),
            Outcome::Fetched { .. } if self.settings.quiet => return,
            Outcome::Fetched { remote, bytes: came, .. } => {
                let cost = style::dim(&format!("{} from {remote}", bytes(*came)));
                format!("{}   {label}  {cost}", style::green("fetch"))
            }
            Outcome::Missing { because: None } => format!("{} {label}  no remote has it", style::yellow("missing")),
            Outcome::Missing { because: Some(other) } => {
                format!("{} {label}  its key is not known without {other}", style::yellow("missing"))
            }
            Outcome::Built { .. } if self.settings.quiet => return,
            Outcome::Built { wall_ms, peak_bytes, unchanged, left_out, .. } => {
                let same = if *unchanged { ", same bytes as before" } else { "" };
                let out = left_out.as_ref().map(|r| format!("\n        {}", style::yellow(&format!("left out: {r}"))));
                let cost = style::dim(&format!("{}, {}{same}", duration(*wall_ms), bytes(*peak_bytes)));
                format!("{}   {label}  {cost}{}", style::green("built"), out.unwrap_or_default())
            }
            Outcome::Failed { failure, log, scratch } => {
                self.failures.push((label.clone(), failure.clone(), log.clone(), scratch.clone()));
                format!("{}  {label}", style::red("failed"))
            }
            Outcome::Skipped { because } => format!("{} {label}  because {because} failed", style::yellow("skipped")),
            Outcome::Late { .. } if self.settings.quiet => return,
            Outcome::Late { until, last_ms } => {
                let took = last_ms.map(|ms| format!(", it took {} the last time", duration(ms)));
                let took = took.unwrap_or_default();
                format!("{} {label}  not begun before {until}{took}", style::yellow("skipped"))
            }
            Outcome::Cancelled => format!("{} {label}", style::yellow("stopped")),
            Outcome::Outdated { file } => {
                let file = file.as_deref().unwrap_or("what it reads");
                format!("{} {label}  {file} changed while it ran", style::yellow("stopped"))
            }
        };
        self.say(&line);
    }

    fn checked(&mut self, label: &Label, found: &Repeat) {
        self.clear(label);
        match found {
            Repeat::Same | Repeat::NotRepeatable if self.settings.quiet => {}
            Repeat::Same => self.say(&format!("{}    {label}", style::green("same"))),
            Repeat::NotRepeatable => {
                self.say(&format!("{}    {label}  not repeatable by declaration", style::dim("pass")));
            }
            Repeat::Differs { path, place, before, after, kept } => {
                let place = place.as_ref().map(|place| format!(", {place}")).unwrap_or_default();
                self.say(&format!("{} {label}  {path}{place}: {before} -> {after}", style::red("differs")));
                self.say(&format!("        {} {kept}", style::cyan("kept:")));
            }
        }
    }

    /// A target's progress line goes.
    fn clear(&mut self, label: &Label) {
        if let Some(Running { bar: Some(bar), .. }) = self.running.remove(label) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    /// The failures once more, where the eye ends up.
    fn repeat_failures(&self) {
        for (label, failure, log, scratch) in &self.failures {
            let message = match self.settings.shown {
                Shown::None => failure.message.lines().next().unwrap_or_default(),
                _ => &failure.message,
            };
            self.say(&format!("\n{} {label}: {message}", style::red("error:")));
            if let Some(help) = &failure.help {
                self.say(&format!("  {} {}", style::cyan("help:"), help.replace('\n', "\n        ")));
            }
            if let Some(log) = log {
                self.say(&format!("  {}  {log}", style::cyan("log:")));
            }
            if let Some(scratch) = scratch {
                self.say(&format!("  {} {scratch}", style::cyan("kept:")));
            }
        }
    }

    fn summary(&self, summary: &Summary) {
        let mut parts = Vec::new();
        for (n, word) in [
            (summary.built, "built"),
            (summary.restored, "restored"),
            (summary.fresh, "fresh"),
            (summary.failed, "failed"),
            (summary.skipped, "skipped"),
            (summary.missing, "missing"),
        ] {
            if n > 0 {
                parts.push(format!("{n} {word}"));
            }
        }
        if parts.is_empty() {
            parts.push("nothing to do".into());
        }
        self.say(&format!("{} in {}", parts.join(", "), duration(summary.wall_ms)));
        if let Some(until) = &summary.until {
            self.say(&format!("{} not begun before {until}; `effai build` goes on", summary.late));
        }
    }
}

impl Watcher for Lines {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Planned { .. } => self.failures.clear(),
            Event::Watching { files, targets } => {
                if !self.settings.quiet {
                    let (files, targets) = (count(*files, "file"), count(*targets, "target"));
                    self.say(&style::dim(&format!("watching {files} for {targets}; Ctrl-C ends it")));
                }
            }
            Event::Changed { file, more } => {
                if !self.settings.quiet {
                    let more = if *more > 0 { format!(" and {more} more") } else { String::new() };
                    self.say(&format!("{} {file}{more}", style::cyan("changed")));
                }
            }
            Event::Asked { .. } => {}
            Event::Stuck { .. } => self.say(&style::dim("waiting for the next edit")),
            Event::Reacting { name } => {
                if !self.settings.quiet {
                    self.say(&format!("{}  {name}", style::cyan("change")));
                }
            }
            Event::Reacted { name, failure } => {
                if let Some(failure) = failure {
                    self.say(&format!("{}  {name}: {}", style::red("failed"), failure.message));
                }
            }
            Event::Verdict { label, verdict, reasons } => {
                if self.settings.explain && *verdict == Verdict::Stale {
                    self.say(&format!("{}   {label}", style::yellow("stale")));
                    for reason in reasons {
                        self.say(&format!("        {reason}"));
                    }
                }
            }
            Event::Started { label } => {
                let running = Running { since: Instant::now(), bar: None, phase: None };
                self.running.insert(label.clone(), running);
                if !self.settings.quiet {
                    self.say(&format!("{}     {label}", style::cyan("run")));
                }
            }
            Event::Checking { label } => {
                self.running.insert(label.clone(), Running { since: Instant::now(), bar: None, phase: None });
                if !self.settings.quiet {
                    self.say(&format!("{}   {label}", style::cyan("check")));
                }
            }
            Event::Checked { label, found } => self.checked(label, found),
            Event::AllChecked { same, differ, failed, passed_over } => {
                self.repeat_failures();
                if !self.settings.quiet {
                    let counts =
                        [(same, "the same"), (differ, "differ"), (failed, "failed"), (passed_over, "passed over")];
                    let parts: Vec<String> =
                        counts.iter().filter(|(n, _)| **n > 0).map(|(n, word)| format!("{n} {word}")).collect();
                    self.say(&format!("checked: {}", parts.join(", ")));
                }
            }
            Event::Tested(_) if self.settings.quiet => {}
            Event::Tested(counts) => self.say(&tally(counts)),
            Event::Pruned { .. } if self.settings.quiet => {}
            Event::Pruned { blobs, bytes: gone, bytes_left, bytes_max } => {
                let (gone, left, max) = (bytes(*gone), bytes(*bytes_left), bytes(*bytes_max));
                let over = if bytes_left > bytes_max { "; projects stand on the rest" } else { "" };
                let blobs = count(*blobs, "blob");
                self.say(&format!("pruned the store: {gone} in {blobs} deleted, {left} left of {max}{over}"));
            }
            Event::NotPruned(failure) => {
                self.say(&format!("{} the store was not pruned: {}", style::yellow("warning"), failure.message));
            }
            Event::Said { label, what } => self.said(label, what),
            Event::Outlook { done, to_run, running, left_ms } => {
                self.look_ahead(&outlook(*done, *to_run, *running, *left_ms));
            }
            Event::Fetching { label, .. } => {
                let running = Running { since: Instant::now(), bar: None, phase: None };
                self.running.insert(label.clone(), running);
            }
            Event::RemoteLeftOut { remote, why } => {
                self.say(&format!("{} the remote `{remote}` is left out: {why}", style::yellow("warning")));
                self.say(&format!("         {}", style::cyan("`effai doctor` says whether it answers again")));
            }
            Event::Sending { .. } if self.settings.quiet => {}
            Event::Sending { artifacts } => {
                self.say(&style::dim(&format!("sending {} to remotes", count(*artifacts, "artifact"))));
            }
            Event::Waiting { label, holder } => {
                self.say(&format!("{}    {label}  for {holder}", style::yellow("wait")));
            }
            Event::Finished { label, outcome } => self.finished(label, outcome),
            Event::Ended(summary) => {
                if let Some(outlook) = self.outlook.take() {
                    outlook.finish_and_clear();
                    self.bars.remove(&outlook);
                }
                self.repeat_failures();
                if !self.settings.quiet {
                    self.summary(summary);
                }
            }
        }
    }

    fn end(&mut self) {
        let _ = self.bars.clear();
    }

    fn worst(&self) -> Option<Class> {
        let classes: Vec<Class> = self.failures.iter().map(|(_, f, ..)| f.class).collect();
        [Class::Target, Class::User, Class::Environment].into_iter().find(|c| classes.contains(c))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outlook_is_rounded() {
        assert_eq!(outlook(12, 340, 2, Some(170_000)), "12 of 340 done, 2 running, about 3 min left");
        assert_eq!(outlook(0, 2, 1, Some(1_200)), "0 of 2 done, 1 running, about 2 s left");
        assert_eq!(outlook(0, 2, 1, Some(7_500_000)), "0 of 2 done, 1 running, about 2 h 05 min left");
        assert_eq!(outlook(1, 2, 1, Some(300)), "1 of 2 done, 1 running, almost done");
        assert_eq!(outlook(1, 2, 1, None), "1 of 2 done, 1 running");
    }

    #[test]
    fn tests_are_counted() {
        let check = |passed, cached, failed, skipped, expected: &str| {
            assert_eq!(tally(&Tally { passed, cached, failed, skipped }), expected);
        };
        check(12, 10, 1, 1, "12 passed (10 of them cached), 1 failed, 1 skipped");
        check(2, 2, 0, 0, "2 passed (all of them cached)");
        check(1, 1, 0, 3, "1 passed (cached), 3 skipped");
        check(0, 0, 1, 0, "0 passed, 1 failed");
    }

    #[test]
    fn speed_and_time_left_are_of_the_phase() {
        let phase =
            |unit: &str, total, from, last| Phase { unit: unit.into(), total, since: Instant::now(), from, last };
        let at = |phase: Phase, ms| pace(&phase, Duration::from_millis(ms));
        assert_eq!(at(phase("steps", Some(100), 10, 30), 4_000), ", 5.0/s, 14 s left");
        assert_eq!(at(phase("pictures", Some(10_000), 0, 2_000), 20_000), ", 100/s, 1 min 20 s left");
        assert_eq!(at(phase("bytes", None, 0, 4 << 20), 2_000), ", 2.0 MiB/s");
        assert_eq!(at(phase("steps", Some(4), 0, 4), 2_000), ", 2.0/s");
        assert_eq!(at(phase("steps", Some(4), 1, 1), 2_000) + &at(phase("steps", Some(4), 0, 2), 20), "");
    }
}
