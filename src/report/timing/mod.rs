//! How long programs take, and what models are asked to do, round by round; and how far the machine let that be known.

pub mod figures;
pub mod page;
pub mod tables;
pub mod words;

use serde::Serialize;

use crate::measure::Series;
use crate::measure::estimate::Estimate;
use crate::measure::kept::{Against, By, Kept, OfModel, Subject, is_none};
use crate::measure::noise::Noise;
use crate::measure::summary::{Ratio, Summary, median, median_of, paired};
use crate::measure::workload::{Work, Workload};
use crate::report::numbers;

/// A measurement, in numbers.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// Rounds before those that count.
    pub warm_up: usize,
    /// Whether every subject was steady then.
    pub is_steady: bool,
    /// Rounds that do not count, since something disturbed the machine beside them.
    #[serde(skip_serializing_if = "is_none")]
    pub set_aside: usize,
    /// How narrow the medians' intervals were to be, as a share of the median to either side.
    pub precision: f64,
    /// Whether they are.
    pub is_precise: bool,
    /// The process that starts the subjects held so much, in bytes; what a subject held below that is not seen.
    pub floor_bytes: u64,
    /// One a program, in the order of the recipe; then of each workload one a backend and model.
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

/// One program, or what one model did by one backend.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub subject: String,
    /// The program and its arguments; nothing of a model.
    pub run: Vec<String>,
    /// The model, what it did, and what computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<OfModel>,
    /// Its rounds.
    #[serde(flatten)]
    pub summary: Summary,
    /// Its time by that of the first subject with the same workload and backend, round by round; none of the first.
    pub ratio: Option<Ratio>,
    /// Likewise by its own on the first backend; none of the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_backend: Option<Ratio>,
    /// Of a language model: the time until the first token was known, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_s: Option<Estimate>,
    /// How much it did in a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rate>,
    /// Its place among the report's subjects.
    #[serde(skip)]
    pub place: usize,
}

/// What a [`Rate`] is of.
const PROMPT_TOKENS: &str = "prompt tokens";
const GENERATED_TOKENS: &str = "generated tokens";
const TEXTS: &str = "texts";
const PICTURES: &str = "pictures";

/// How much was done in a second, by the median round.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Of what: "texts", "pictures", "prompt tokens" or "generated tokens".
    pub of: &'static str,
    /// So many.
    pub per_s: Estimate,
}

/// Rows that compare with one another: programs, or what models did with one workload.
#[derive(Debug)]
pub struct Group<'a> {
    /// The workload; none of programs.
    pub workload: Option<&'a Workload>,
    /// Each with its rounds.
    pub rows: Vec<(&'a Row, &'a Series)>,
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
        let is_quiet = kept.busy.is_empty();
        let (_, places) = subjects(kept);
        let row = |(number, subject): (usize, &Subject)| {
            // By the first row that this holds of, where that is another one.
            let by = |is: &dyn Fn(&Subject) -> bool| {
                let first = kept.subjects[..number].iter().find(|other| is(other))?;
                Some(Ratio::of(paired(&subject.series.wall_s, &first.series.wall_s, seed), is_quiet))
            };
            let model = subject.model.as_ref();
            let is_same = |other: &Subject| workload(other) == workload(subject);
            let is_first = |other: &Subject| match (model, &other.model) {
                (Some(own), Some(other)) => own.stands_beside(other),
                (own, other) => own.is_none() && other.is_none(),
            };
            let mut summary = Summary::of(&subject.series, seed);
            // Of the process that all workloads have in common the peak says nothing of one of them.
            if let Some(memory) = model.and_then(|model| model.memory) {
                summary.peak_bytes = memory.peak_bytes;
            }
            Row {
                subject: subject.name.clone(),
                run: subject.run.clone(),
                model: subject.model.clone(),
                summary,
                ratio: by(&|other| is_same(other) && is_first(other)),
                by_backend: by(&|other| model.is_some() && is_same(other) && other.name == subject.name),
                first_s: (!subject.series.first_s.is_empty()).then(|| median(&subject.series.first_s, seed)),
                rates: model.map_or_else(Vec::new, |model| rates(model.workload.work, &subject.series, seed)),
                place: places[number],
            }
        };
        let probe = &kept.probe;
        Self {
            warm_up: kept.warm_up,
            is_steady: kept.is_steady,
            set_aside: kept.set_aside,
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

    /// The rows by what compares.
    pub fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for row in self.rows.iter().zip(&self.series) {
            let workload = row.0.model.as_ref().map(|model| &model.workload);
            match groups.iter_mut().find(|group| group.workload == workload) {
                Some(group) => group.rows.push(row),
                None => groups.push(Group { workload, rows: vec![row] }),
            }
        }
        groups
    }
}

impl Rate {
    /// What it is called in files: "generated_tokens_per_s".
    pub fn metric(&self) -> &'static str {
        match self.of {
            PROMPT_TOKENS => "prompt_tokens_per_s",
            GENERATED_TOKENS => "generated_tokens_per_s",
            TEXTS => "texts_per_s",
            _ => "pictures_per_s",
        }
    }
}

impl Row {
    /// What computed, of a model.
    pub fn backend(&self) -> Option<&By> {
        self.model.as_ref().map(|model| &model.backend)
    }

    /// Whether another row is what this one is held against.
    pub fn stands_beside(&self, other: &Self) -> bool {
        match (&self.model, &other.model) {
            (Some(own), Some(other)) => own.stands_beside(other),
            (own, other) => own.is_none() && other.is_none(),
        }
    }
}

impl Group<'_> {
    /// What it is called among others: "chat: prompt=256 generate=64".
    pub fn title(&self) -> String {
        self.workload.map_or_else(|| "Programs".to_owned(), |workload| format!("{}: {}", workload.name, workload.work))
    }
}

/// The report's subjects: programs, and models once for each backend where there are several. And of each row which it is.
pub fn subjects(kept: &Kept) -> (Vec<numbers::Subject>, Vec<usize>) {
    let backends = || kept.subjects.iter().filter_map(|subject| Some(&subject.model.as_ref()?.backend));
    let are_several = backends().zip(backends().skip(1)).any(|(a, b)| a != b);
    let (mut names, mut places): (Vec<String>, Vec<usize>) = (Vec::new(), Vec::new());
    for Subject { name, model, .. } in &kept.subjects {
        let name = match model {
            Some(model) if are_several => format!("{name} on {}", model.backend.name()),
            _ => name.clone(),
        };
        let place = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        places.push(place);
    }
    let subject = |name: String| numbers::Subject { label: name.clone(), name, ..numbers::Subject::default() };
    (names.into_iter().map(subject).collect(), places)
}

fn workload(subject: &Subject) -> Option<&Workload> {
    subject.model.as_ref().map(|model| &model.workload)
}

/// What was done a second, by the rounds.
fn rates(work: Work, series: &Series, seed: u64) -> Vec<Rate> {
    let rate = |of, count: usize, times: &mut dyn Iterator<Item = f64>| {
        let rates: Vec<f64> = times.map(|seconds| count as f64 / seconds).collect();
        (count > 0 && !rates.is_empty()).then(|| Rate { of, per_s: median(&rates, seed) })
    };
    let whole = || series.wall_s.iter().copied();
    match work {
        Work::Tokens { prompt, generate } => {
            let reading = rate(PROMPT_TOKENS, prompt, &mut series.first_s.iter().copied());
            let after = whole().zip(&series.first_s).map(|(whole, first)| whole - first);
            [reading, rate(GENERATED_TOKENS, generate, &mut { after })].into_iter().flatten().collect()
        }
        Work::Texts { texts, .. } => rate(TEXTS, texts, &mut whole()).into_iter().collect(),
        Work::Pictures { pictures, .. } => rate(PICTURES, pictures, &mut whole()).into_iter().collect(),
        Work::Load { .. } => Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::backend::rng::Rng;
    use crate::measure::kept::{Memory, VERSION};
    use crate::measure::probe::{Probe, STEPS};
    use crate::measure::workload::Load;
    use crate::report::numbers::{Numbers, Of, VERSION_OF_TIMING};

    /// Two programs, the second of which takes this much longer, on a machine that was busy with this.
    pub(crate) fn kept(factor: f64, busy: &[&str]) -> Kept {
        let mut rng = Rng::new(4, "sample");
        let mut series = |factor: f64| {
            let wall_s: Vec<f64> = (0..120).map(|_| 0.0123 * factor * (1.0 + 0.02 * f64::from(rng.normal()))).collect();
            let cpu_s = wall_s.iter().map(|wall| 0.9 * wall).collect();
            Series { cpu_s, peak_bytes: vec![6_500_000; 120], wall_s, ..Series::default() }
        };
        let subject = |name: &str, series| Subject {
            name: name.into(),
            run: vec![name.into(), "-x".into()],
            series,
            ..Subject::default()
        };
        Kept {
            version: VERSION,
            label: "reports/search".into(),
            machine: "a processor, 2 cores, 8 GiB, linux x86_64".into(),
            warm_up: 10,
            set_aside: 3,
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

    /// A program beside two language models on two backends, which chat and are opened.
    pub(crate) fn models() -> Numbers {
        let mut kept = kept(1.0, &[]);
        kept.subjects.truncate(1);
        let mut rng = Rng::new(5, "models");
        for work in [Work::Tokens { prompt: 256, generate: 64 }, Work::Load { load: Load::Cold }] {
            let name = if matches!(work, Work::Load { .. }) { "cold" } else { "chat" };
            for (backend, quick) in [(Backend::Candle, 1.0), (Backend::Mlx, 0.5)] {
                for (subject, factor) in [("f32", 1.0), ("<q4>", 0.6)] {
                    let mut series = Series::default();
                    for _ in 0..24 {
                        let wall_s = 2.0 * factor * quick * (1.0 + 0.01 * f64::from(rng.normal()));
                        let first_s = (name == "chat").then_some(0.4 * wall_s);
                        series.push(crate::measure::Sample { wall_s, cpu_s: wall_s, peak_bytes: 900_000_000, first_s });
                    }
                    let weight_bytes = (540e6 * factor) as u64;
                    let memory = Memory {
                        weight_bytes,
                        load_peak_bytes: 2 * weight_bytes,
                        resident_bytes: weight_bytes + 60_000_000,
                        peak_bytes: weight_bytes + 90_000_000,
                        token_bytes: Some(46_080),
                    };
                    let model = OfModel {
                        label: format!("models/{subject}"),
                        backend: By::Backend(backend),
                        workload: Workload { name: name.into(), work },
                        memory: (name == "chat").then_some(memory),
                    };
                    let (name, model) = (subject.to_owned(), Some(model));
                    kept.subjects.push(Subject { name, model, series, ..Subject::default() });
                }
            }
        }
        let against = kept.against(&kept, 0.02, 7);
        let precision = Precision { asked: 0.02, is_reached: true };
        numbers_of(&kept, Timing::of(&kept, precision, 5_000_000, Some(against), 7))
    }

    #[test]
    fn models_compare_within_a_workload_and_a_backend() {
        let numbers = models();
        let timing = numbers.timing.as_ref().unwrap();
        let names: Vec<&str> = numbers.subjects.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!(names, ["grep", "f32 on candle", "<q4> on candle", "f32 on mlx", "<q4> on mlx"]);
        let groups = timing.groups();
        let titles: Vec<String> = groups.iter().map(Group::title).collect();
        assert_eq!(titles, ["Programs", "chat: prompt=256 generate=64", "cold: load=\"cold\""]);
        assert_eq!(groups.iter().map(|group| group.rows.len()).collect::<Vec<_>>(), [1, 4, 4]);
        let of = |i: usize| {
            let row = groups[1].rows[i].0;
            let value = |ratio: Option<Ratio>| ratio.map(|ratio| (10.0 * ratio.value).round());
            (row.place, value(row.ratio), value(row.by_backend))
        };
        assert_eq!([of(0), of(1)], [(1, None, None), (2, Some(6.0), None)]);
        assert_eq!([of(2), of(3)], [(3, None, Some(5.0)), (4, Some(6.0), Some(5.0))]);
        let row = groups[1].rows[0].0;
        let rate = |i: usize| (row.rates[i].of, row.rates[i].per_s.value.round());
        // 256 in two fifths of two seconds, 64 in the rest.
        assert!(matches!([rate(0), rate(1)], [("prompt tokens", 315.0..=325.0), ("generated tokens", 50.0..=56.0)]));
        assert!((row.first_s.unwrap().value - 0.8).abs() < 0.02 && groups[2].rows[0].0.rates.is_empty());
        assert_eq!((row.summary.peak_bytes, groups[2].rows[0].0.summary.peak_bytes), (630_000_000, 900_000_000));
    }

    fn numbers_of(kept: &Kept, timing: Timing) -> Numbers {
        Numbers {
            version: VERSION_OF_TIMING,
            of: Of::Timing,
            label: kept.label.clone(),
            machine: kept.machine.clone(),
            seed: 7,
            subjects: subjects(kept).0,
            timing: Some(timing),
            ..Numbers::default()
        }
    }
}
