//! How long programs take, round by round, and how far the machine let that be known.

pub mod figures;
pub mod page;
pub mod tables;
pub mod words;

use serde::Serialize;

use crate::measure::Series;
use crate::measure::kept::{Against, Kept};
use crate::measure::noise::Noise;
use crate::measure::summary::{Ratio, Summary, median_of, paired};

/// A measurement, in numbers.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// Rounds before those that count.
    pub warm_up: usize,
    /// Whether every subject was steady then.
    pub is_steady: bool,
    /// How narrow the medians' intervals were to be, as a share of the median to either side.
    pub precision: f64,
    /// Whether they are.
    pub is_precise: bool,
    /// The process that starts the subjects held so much, in bytes; what a subject held below that is not seen.
    pub floor_bytes: u64,
    /// One a subject, in the order of the recipe.
    pub rows: Vec<Row>,
    /// The probe of the machine's pace.
    pub probe: Pace,
    /// What the machine did besides.
    pub noise: Noise,
    /// Why it was too busy for the numbers to be compared; nothing where it was quiet.
    pub busy: Vec<String>,
    /// Against an earlier measurement.
    pub against: Option<Against>,
    /// Every sample, for the plots; they are in `benchmark.json`.
    #[serde(skip)]
    pub series: Vec<Series>,
    /// The probe's times.
    #[serde(skip)]
    pub probe_s: Vec<f64>,
}

/// One subject.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub subject: String,
    /// The program and its arguments.
    pub run: Vec<String>,
    /// Its rounds.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its time by that of the first subject, round by round; none of the first.
    pub ratio: Option<Ratio>,
}

/// What the probe said.
#[derive(Debug, Serialize)]
pub struct Pace {
    /// Steps of arithmetic each time.
    pub steps: u64,
    /// The median in seconds.
    pub p50_s: f64,
    /// From the 10th to the 90th percentile, as a share of the median.
    pub spread: f64,
}

/// How well things were to be known, and are.
#[derive(Clone, Copy, Debug)]
pub struct Precision {
    /// As was asked.
    pub asked: f64,
    /// Whether it is so.
    pub is_reached: bool,
}

impl Timing {
    /// Of what was measured; beside it what an earlier measurement says of it.
    pub fn of(kept: &Kept, precision: Precision, floor_bytes: u64, against: Option<Against>, seed: u64) -> Self {
        let first = kept.subjects.first().map(|subject| subject.series.wall_s.as_slice()).unwrap_or_default();
        let is_quiet = kept.busy.is_empty();
        let row = |(place, subject): (usize, &crate::measure::kept::Subject)| Row {
            subject: subject.name.clone(),
            run: subject.run.clone(),
            summary: Summary::of(&subject.series, seed),
            ratio: (place > 0).then(|| Ratio::of(paired(&subject.series.wall_s, first, seed), is_quiet)),
        };
        let probe = &kept.probe;
        Self {
            warm_up: kept.warm_up,
            is_steady: kept.is_steady,
            precision: precision.asked,
            is_precise: precision.is_reached,
            floor_bytes,
            rows: kept.subjects.iter().enumerate().map(row).collect(),
            probe: Pace { steps: probe.steps, p50_s: median_of(&probe.seconds), spread: probe.spread() },
            noise: kept.noise.clone(),
            busy: kept.busy.clone(),
            against,
            series: kept.subjects.iter().map(|subject| subject.series.clone()).collect(),
            probe_s: probe.seconds.clone(),
        }
    }

    /// How many rounds there were.
    pub fn rounds(&self) -> usize {
        self.rows.first().map_or(0, |row| row.summary.rounds)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backend::rng::Rng;
    use crate::measure::kept::{Subject, VERSION};
    use crate::measure::probe::{Probe, STEPS};
    use crate::report::numbers::{self, Numbers, Of, VERSION_OF_TIMING};

    /// Two programs, the second of which takes this much longer, on a machine that was busy with this.
    pub(crate) fn kept(factor: f64, busy: &[&str]) -> Kept {
        let mut rng = Rng::new(4, "sample");
        let mut series = |factor: f64| {
            let wall_s: Vec<f64> = (0..120).map(|_| 0.0123 * factor * (1.0 + 0.02 * f64::from(rng.normal()))).collect();
            Series { cpu_s: wall_s.iter().map(|wall| 0.9 * wall).collect(), peak_bytes: vec![6_500_000; 120], wall_s }
        };
        let subject = |name: &str, series| Subject { name: name.into(), run: vec![name.into(), "-x".into()], series };
        Kept {
            version: VERSION,
            label: "reports/search".into(),
            machine: "a processor, 2 cores, 8 GiB, linux x86_64".into(),
            warm_up: 10,
            is_steady: true,
            subjects: vec![subject("grep", series(1.0)), subject("<awk>", series(factor))],
            probe: Probe { steps: STEPS, seconds: (0..121).map(|i| 1e-3 * (1.0 + 1e-4 * f64::from(i % 7))).collect() },
            noise: Noise { others_cores: Some(0.02), mhz: Some((2400.0, 3100.0)), ..Noise::default() },
            busy: busy.iter().map(|line| (*line).to_owned()).collect(),
        }
    }

    /// [`kept`] as a report, against itself with the second program quicker.
    pub(crate) fn sample(factor: f64, busy: &[&str]) -> Numbers {
        let now = kept(factor, busy);
        let against = now.against(&kept(1.4, &[]), 0.02, 7);
        let precision = Precision { asked: 0.02, is_reached: true };
        numbers_of(&now, Timing::of(&now, precision, 5_000_000, Some(against), 7))
    }

    fn numbers_of(kept: &Kept, timing: Timing) -> Numbers {
        let subjects = kept.subjects.iter().map(|subject| numbers::Subject {
            label: subject.name.clone(),
            name: subject.name.clone(),
            ..numbers::Subject::default()
        });
        Numbers {
            version: VERSION_OF_TIMING,
            of: Of::Timing,
            label: kept.label.clone(),
            machine: kept.machine.clone(),
            seed: 7,
            subjects: subjects.collect(),
            timing: Some(timing),
            ..Numbers::default()
        }
    }
}
