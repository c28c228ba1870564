//! What was found of times, in words.

use crate::measure::estimate::Estimate;
use crate::measure::kept::{Against, Row as Held, Verdict};
use crate::measure::noise::Noise;
use crate::measure::summary::Ratio;
use crate::report::numbers::Numbers;
use crate::report::timing::{Rate, Row, Timing};
use crate::report::words::list;

/// A unit of time, so large that numbers are easy to read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unit {
    /// "ms".
    pub name: &'static str,
    /// So many are a second.
    pub per_second: f64,
}

impl Unit {
    /// Of a number that is no time: it stands as it is.
    pub const PLAIN: Self = Self { name: "", per_second: 1.0 };

    /// In which a time of so many seconds is told.
    pub fn of(seconds: f64) -> Self {
        let (name, per_second) = match seconds.abs() {
            s if s >= 1.0 => ("s", 1.0),
            s if s >= 1e-3 => ("ms", 1e3),
            s if s >= 1e-6 => ("\u{b5}s", 1e6),
            _ => ("ns", 1e9),
        };
        Self { name, per_second }
    }

    /// A time in it, by four digits that say something.
    pub fn text(self, seconds: f64) -> String {
        let value = seconds * self.per_second;
        let decimals = if value > 0.0 { (3 - value.log10().floor() as i32).clamp(0, 4) as usize } else { 1 };
        format!("{value:.decimals$}")
    }

    /// From the one end of an interval to the other.
    pub fn interval(self, e: Estimate) -> String {
        format!("{}\u{2013}{}", self.text(e.low), self.text(e.high))
    }
}

/// "12.30 ms".
pub fn time_text(seconds: f64) -> String {
    let unit = Unit::of(seconds);
    format!("{} {}", unit.text(seconds), unit.name)
}

/// A share that a recipe has, in hundredths, as it is written there.
fn percent(share: f64) -> f64 {
    (1e4 * share).round() / 100.0
}

/// "1.052 (1.049 to 1.055)".
pub fn ratio_text(ratio: &Ratio) -> String {
    format!("{:.3} ({:.3} to {:.3})", ratio.value, ratio.low, ratio.high)
}

/// The machine was too busy, and by what; none where it was not.
pub fn busy_text(busy: &[String]) -> Option<String> {
    (!busy.is_empty()).then(|| format!("the machine was busy: {}; no difference is said to stand out", list(busy)))
}

/// What is worth knowing first.
pub fn headline(numbers: &Numbers) -> Vec<String> {
    let Some(timing) = &numbers.timing else { return Vec::new() };
    let sentence = |text: String| {
        let mut letters = text.chars();
        letters.next().map_or(String::new(), |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
    };
    let mut said: Vec<String> = busy_text(&timing.busy).map(sentence).into_iter().collect();
    for group in timing.groups() {
        let rows: Vec<&Row> = group.rows.iter().map(|(row, _)| *row).collect();
        let on = group.workload.map_or_else(String::new, |workload| format!("{}: ", workload.name));
        let text = |text: String| format!("{on}{text}");
        if let [only] = rows[..] {
            said.push(text(format!("{} takes {}{}.", name(numbers, only), time_of(only), rate(only))));
        }
        for row in rows.iter().skip(1) {
            // Of another backend's first subject there is only itself to be beside.
            let first = rows.iter().find(|first| match row.ratio {
                Some(_) => row.stands_beside(first),
                None => first.subject == row.subject,
            });
            let ratio = row.ratio.or(row.by_backend);
            said.extend(first.zip(ratio).map(|(first, ratio)| text(beside(numbers, row, first, ratio))));
        }
    }
    said.extend(timing.against.iter().flat_map(against));
    if !timing.is_steady {
        said.push("Warm-up ended before every subject was steady.".into());
    }
    if !timing.is_precise {
        let asked = percent(timing.precision);
        said.push(format!("The time was up before every median was known within {asked} %, as was asked."));
    }
    said
}

fn time_of(row: &Row) -> String {
    let e = row.summary.p50_s;
    let unit = Unit::of(e.value);
    format!("{} {} ({})", unit.text(e.value), unit.name, unit.interval(e))
}

/// What a row is called among the report's subjects.
fn name<'a>(numbers: &'a Numbers, row: &Row) -> &'a str {
    &numbers.subjects[row.place].name
}

/// Of a model, how much it did a second: ", 53.31 generated tokens/s". Of several rates the last, for which people wait longest.
fn rate(row: &Row) -> String {
    let text = |rate: &Rate| format!(", {} {}/s", Unit::PLAIN.text(rate.per_s.value), rate.of);
    row.rates.last().map_or_else(String::new, text)
}

/// A row beside another one, by this ratio of their times.
fn beside(numbers: &Numbers, row: &Row, first: &Row, ratio: Ratio) -> String {
    let (own, reference) = (name(numbers, row), name(numbers, first));
    let then = if row.rates.is_empty() { "," } else { ";" };
    let times = format!("{}{}{then} {reference} {}{}", time_of(row), rate(row), time_of(first), rate(first));
    let is_quiet = numbers.timing.as_ref().is_some_and(|timing| timing.busy.is_empty());
    let by = ratio_text(&ratio);
    match ratio {
        _ if !is_quiet => format!("{own} took {by} times as long as {reference}, on a busy machine: {times}."),
        Ratio { stands_out: true, value, .. } if value > 1.0 => {
            format!("{own} takes {by} times as long as {reference}: {times}.")
        }
        Ratio { stands_out: true, .. } => format!("{own} takes {by} of the time of {reference}: {times}."),
        _ => format!("{own} and {reference} do not differ beyond noise, {by}: {times}."),
    }
}

fn against(found: &Against) -> Vec<String> {
    if let Some(why) = &found.unknown {
        return vec![format!("Not held against the baseline: {why}.")];
    }
    let (same, others): (Vec<&Held>, Vec<&Held>) = found.rows.iter().partition(|row| row.verdict == Verdict::Within);
    let mut said: Vec<String> = others.into_iter().map(|row| format!("{}.", held(row, found.slowdown))).collect();
    if !same.is_empty() {
        let names: Vec<String> = same.iter().map(|row| row.subject.clone()).collect();
        let are = if names.len() == 1 { "is" } else { "are" };
        let by = percent(found.slowdown);
        said.push(format!(
            "{} {are} not slower than the baseline by more than {by} %, as far as is known.",
            list(&names)
        ));
    }
    said
}

/// How a subject is beside its baseline: "grep takes 1.050 (1.046 to 1.054) times as long as the baseline, ...".
pub fn held(row: &Held, slowdown: f64) -> String {
    let times = format!("{} and not {}", time_text(row.now_s), time_text(row.then_s));
    let (name, ratio) = (&row.subject, ratio_text(&row.ratio));
    match row.verdict {
        Verdict::Slower => {
            let by = percent(slowdown);
            format!("{name} takes {ratio} times as long as the baseline, and {by} % more is allowed: {times}")
        }
        _ => format!("{name} takes {ratio} of the baseline's time: {times}"),
    }
}

/// What the machine did besides: what it is, and how much.
pub fn machine(timing: &Timing) -> Vec<(String, String)> {
    let Noise { others_cores, stolen_cores, waiting, mhz, throttled, put_aside, energy_j } = &timing.noise;
    let or = |text: Option<String>, none: &str| text.unwrap_or_else(|| none.to_owned());
    let cores = |cores: &Option<f64>| cores.map(|cores| format!("{cores:.2} cores"));
    let (unread, short) = ("not readable here", "not readable here, or too short to tell");
    let pace = &timing.probe;
    let of = |name: &str, text| (name.to_owned(), text);
    vec![
        of("CPU time of other programs", or(cores(others_cores), short)),
        of("CPU time that the host gave to others", or(cores(stolen_cores), short)),
        of(
            "something waited for a core",
            or(waiting.map(|share| format!("{:.1} % of the time", 100.0 * share)), unread),
        ),
        of("pace of the cores", or(mhz.map(|(low, high)| format!("{low:.0} to {high:.0} MHz")), unread)),
        of("slowed down for heat", or(throttled.map(|times| format!("{times} times")), unread)),
        of("the measuring thread was put aside", or(put_aside.map(|times| format!("{times} times")), unread)),
        of("energy of the processor", or(energy_j.map(|joules| format!("{joules:.1} J")), unread)),
        of(
            "probe of fixed work",
            format!("{}, varied by {:.1} % (10th to 90th percentile)", time_text(pace.p50_s), 100.0 * pace.spread),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::timing::tests::{models, sample};
    use crate::report::words::about;

    #[test]
    fn times_have_a_unit_and_digits_that_say_something() {
        let shown = [12.3456, 1.0, 0.0123456, 0.9996e-3, 4.2e-6, 3e-9, 0.0].map(time_text);
        assert_eq!(shown, ["12.35 s", "1.000 s", "12.35 ms", "999.6 \u{b5}s", "4.200 \u{b5}s", "3.000 ns", "0.0 ns"]);
    }

    #[test]
    fn what_differs_is_said_with_its_interval() {
        let said = headline(&sample(1.5, &[]));
        assert!(said[0].starts_with("<awk> takes 1.50") && said[0].contains(" times as long as grep: 18."), "{said:?}");
        assert!(said[1].starts_with("<awk> takes 1.07") && said[1].contains("and 2 % more is allowed"), "{said:?}");
        assert_eq!(said[2], "grep is not slower than the baseline by more than 2 %, as far as is known.");
        assert_eq!(about(&sample(1.5, &[])), "2 programs, 120 rounds.");
        let said = headline(&sample(1.0, &[]));
        assert!(said[0].starts_with("<awk> and grep do not differ beyond noise, "), "{said:?}");
        assert!(said[1].contains("of the baseline's time"), "{said:?}");
    }

    #[test]
    fn models_are_told_by_workload() {
        let said = headline(&models());
        let begins = [
            "grep takes ",
            "chat: <q4> on candle takes 0.",
            "chat: f32 on mlx takes 0.",
            "chat: <q4> on mlx takes 0.",
            "cold: <q4> on candle takes 0.",
        ];
        assert!(begins.iter().zip(&said).all(|(begin, said)| said.starts_with(begin)), "{said:#?}");
        assert!(
            said[1].contains(" generated tokens/s; f32 on candle ") && said[4].contains("), f32 on candle "),
            "{said:?}"
        );
        assert!(said[2].contains(" of the time of f32 on candle: "), "{said:?}");
        assert_eq!(about(&models()), "5 subjects on 2 workloads, 120 rounds.");
    }

    #[test]
    fn on_a_busy_machine_nothing_stands_out() {
        let said =
            headline(&sample(1.5, &["other programs kept 1.4 cores busy", "a probe of fixed work varied by 9 %"]));
        let busy = "The machine was busy: other programs kept 1.4 cores busy and a probe of fixed work varied by 9 %; no \
                    difference is said to stand out.";
        assert_eq!(said[0], busy);
        assert!(said[1].starts_with("<awk> took 1.5") && said[1].contains(" grep, on a busy machine: "), "{said:?}");
        assert_eq!(said[2], "Not held against the baseline: the machine was busy.");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let numbers = sample(1.0, &[]);
        let lines = machine(numbers.timing.as_ref().unwrap());
        let of = |name: &str| lines.iter().find(|line| line.0 == name).unwrap().1.as_str();
        assert_eq!(of("CPU time of other programs"), "0.02 cores");
        assert_eq!(of("pace of the cores"), "2400 to 3100 MHz");
        assert_eq!(of("energy of the processor"), "not readable here");
    }
}
