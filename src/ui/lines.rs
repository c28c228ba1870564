//! One line for each thing that happens, and inline progress for what takes longer than a second.
//!
//! Never the alternate screen. Without a terminal there is no progress, only lines.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Watcher, style};
use crate::event::{ActionEvent, Event, Outcome, Summary, Verdict};
use crate::failure::{Class, Failure};
use crate::plan::Label;
use crate::util::text::{bytes, duration};

/// Progress appears for actions that take longer than this.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much to say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Only failures.
    pub quiet: bool,
    /// Also what is fresh, and the logs.
    pub verbose: bool,
    /// Why each target runs.
    pub explain: bool,
}

/// Lines on stderr.
pub struct Lines {
    settings: Settings,
    bars: MultiProgress,
    running: BTreeMap<Label, Running>,
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

impl Lines {
    /// Begins to watch.
    pub fn new(settings: Settings) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Self { settings, bars, running: BTreeMap::new(), failures: Vec::new() }
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
        let bar = running.bar.get_or_insert_with(|| self.bars.add(ProgressBar::no_length()));
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
        let pace = running.phase.as_ref().map(|p| pace(p, p.since.elapsed())).unwrap_or_default();
        bar.set_message(format!("{}{of}{noun}{pace}  {what}", amount(done)));
    }

    fn finished(&mut self, label: &Label, outcome: &Outcome) {
        if let Some(Running { bar: Some(bar), .. }) = self.running.remove(label) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        let line = match outcome {
            Outcome::Fresh if self.settings.verbose => format!("{}   {label}", style::green("fresh")),
            Outcome::Fresh => return,
            Outcome::Restored { .. } if self.settings.quiet => return,
            Outcome::Restored { .. } => format!("{} {label}", style::green("restore")),
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
            Outcome::Cancelled => format!("{} {label}", style::yellow("stopped")),
        };
        self.say(&line);
    }

    /// The failures once more, where the eye ends up.
    fn repeat_failures(&self) {
        for (label, failure, log, scratch) in &self.failures {
            self.say(&format!("\n{} {label}: {}", style::red("error:"), failure.message));
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
        ] {
            if n > 0 {
                parts.push(format!("{n} {word}"));
            }
        }
        if parts.is_empty() {
            parts.push("nothing to do".into());
        }
        self.say(&format!("{} in {}", parts.join(", "), duration(summary.wall_ms)));
    }
}

impl Watcher for Lines {
    fn see(&mut self, event: &Event) {
        match event {
            Event::Planned { .. } => {}
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
            Event::Said { label, what } => self.said(label, what),
            Event::Waiting { label, holder } => {
                self.say(&format!("{}    {label}  for {holder}", style::yellow("wait")));
            }
            Event::Finished { label, outcome } => self.finished(label, outcome),
            Event::Ended(summary) => {
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
