//! `benchmark.json`: every sample, the probe and the machine. It is what a later measurement is held against.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Series;
use super::noise::Noise;
use super::probe::Probe;
use super::summary::{Ratio, apart, median_of};
use super::workload::{Work, Workload};
use crate::backend::Backend;
use crate::failure::Failure;
use crate::util::fs::{self, FsError};

/// Of `benchmark.json`. 1: first. 2: models, each as often as it has workloads and backends.
pub const VERSION: u32 = 2;

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Of this format.
    pub version: u32,
    /// The target.
    pub label: String,
    /// Where it was measured, as a line of text.
    pub machine: String,
    /// Rounds before those that count.
    pub warm_up: usize,
    /// Whether every subject was steady then.
    pub is_steady: bool,
    /// Rounds that are not here, since something disturbed the machine beside them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub set_aside: usize,
    /// What was measured.
    pub subjects: Vec<Subject>,
    /// The machine's pace.
    pub probe: Probe,
    /// What the machine did besides.
    pub noise: Noise,
    /// Why it was too busy for the numbers to be compared.
    pub busy: Vec<String>,
}

/// Of a number that is told where there is one.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
pub(crate) fn is_none(number: &usize) -> bool {
    *number == 0
}

/// One of the things that were measured: a program, or what a model did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name in the recipe.
    pub name: String,
    /// The program and its arguments; nothing of a model.
    pub run: Vec<String>,
    /// The target whose Python and packages the program has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<OfModel>,
    /// Its rounds.
    #[serde(flatten)]
    pub series: Series,
}

/// What a model did, and by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfModel {
    /// The target.
    pub label: String,
    /// What computed.
    pub backend: By,
    /// What it did each round.
    pub workload: Workload,
    /// What it held of the machine's memory meanwhile. None of opening it, of which each round says so.
    pub memory: Option<Memory>,
}

/// What computes what a model does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum By {
    /// One of effai's own backends.
    Backend(Backend),
    /// Of an exported file the program that runs it.
    Program(String),
}

impl By {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            By::Backend(backend) => backend.name(),
            By::Program(name) => name,
        }
    }
}

impl OfModel {
    /// Whether the other one is what this one is held against: a model that a backend computes against others by the same, an
    /// exported file against whatever is first.
    pub fn stands_beside(&self, other: &Self) -> bool {
        matches!(self.backend, By::Program(_)) || self.backend == other.backend
    }
}

/// What a model holds of the machine's memory, in bytes, in a process that opens it and does one round of one workload; 0
/// where the system does not say. What is no longer used is given back at once there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The weights as they lie in memory, by their shapes and types.
    pub weight_bytes: u64,
    /// The most that the process held until the model was open.
    pub load_peak_bytes: u64,
    /// What it held then.
    pub resident_bytes: u64,
    /// The most that it held in the round.
    pub peak_bytes: u64,
    /// Of a language model: keys and values of each token, by their shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_bytes: Option<u64>,
}

/// A measurement against an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Against {
    /// A subject may be slower by this share.
    pub slowdown: f64,
    /// The probe's median divided by what it was then: above 1 the machine is slower now. Ratios are without it.
    pub pace: f64,
    /// Why nothing can be said.
    pub unknown: Option<String>,
    /// One a subject.
    pub rows: Vec<Row>,
}

/// A subject then and now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub subject: String,
    /// The median then, in seconds.
    pub then_s: f64,
    /// The median now.
    pub now_s: f64,
    /// Now by then, at the same pace.
    pub ratio: Ratio,
    /// What that means.
    pub verdict: Verdict,
}

/// How a subject is, beside what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Slower by more than it may be, and surely so: all of the interval is beyond.
    Slower,
    /// Quicker beyond noise.
    Quicker,
    /// Neither.
    Within,
    /// Nothing can be said.
    Unknown,
}

/// A file that cannot be a baseline.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] FsError),
    /// Its text is none of a benchmark.
    #[error("the baseline {} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is of another version.
    #[error("the baseline {} is of version {found}, and this effai reads version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: Value,
    },
    /// It was measured elsewhere.
    #[error("the baseline {} is of another machine: {then}; this one is {now}", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// That machine.
        then: String,
        /// This one.
        now: String,
    },
    /// It knows nothing of a subject.
    #[error("the baseline {} has no subject `{subject}`", path.display())]
    Lacks {
        /// The file.
        path: PathBuf,
        /// The subject.
        subject: String,
        /// Those that it has.
        has: Vec<String>,
    },
    /// A model did something else then.
    #[error("in the baseline {} the workload `{name}` is {then}, and here it is {now}", path.display())]
    Workload {
        /// The file.
        path: PathBuf,
        /// The workload's name.
        name: String,
        /// What it was.
        then: Work,
        /// What it is.
        now: Work,
    },
}

impl KeptError {
    fn help(&self) -> String {
        let anew =
            "take `baseline` out, build, copy the `benchmark.json` that is in `out/` there, and put `baseline` back";
        match self {
            KeptError::Unreadable(_) => "`baseline` takes a `benchmark.json` that a build has made".into(),
            KeptError::Damaged { .. } => format!("restore it, as from git; or make it anew: {anew}"),
            KeptError::Version { .. } => format!("make it anew: {anew}"),
            KeptError::Machine { .. } => {
                format!("times of two machines do not compare: have a baseline for each; to make one here, {anew}")
            }
            KeptError::Lacks { has, .. } => {
                let has: Vec<String> = has.iter().map(|name| format!("`{name}`")).collect();
                format!("it has {}; to have the new one in it, {anew}", has.join(", "))
            }
            KeptError::Workload { .. } => format!("give the other one another name; or make the baseline anew: {anew}"),
        }
    }
}

impl From<KeptError> for Failure {
    fn from(error: KeptError) -> Self {
        match error {
            KeptError::Unreadable(error) => error.into(),
            // The recipe names a file that does not fit.
            error => Failure::user(error.to_string()).help(error.help()),
        }
    }
}

impl Subject {
    /// What it is known by: of a model also its workload and its backend.
    fn names(&self) -> (&str, Option<(&str, &By)>) {
        (&self.name, self.model.as_ref().map(|model| (model.workload.name.as_str(), &model.backend)))
    }

    /// As one text: "q4 (chat, candle)".
    pub fn text(&self) -> String {
        match &self.model {
            None => self.name.clone(),
            Some(OfModel { workload, backend, .. }) => format!("{} ({}, {})", self.name, workload.name, backend.name()),
        }
    }
}

impl Kept {
    /// As text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data") + "\n"
    }

    /// Reads one; `name` is what it is called in messages.
    pub fn read(path: &Path, name: &Path) -> Result<Self, KeptError> {
        Self::parse(&fs::read_text(path)?, name)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeptError> {
        let damaged = |why: String| KeptError::Damaged { path: path.to_owned(), why };
        let value: Value = serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        // The others' fields are not known.
        match value.get("version") {
            Some(found) if *found == VERSION => {}
            Some(found) => return Err(KeptError::Version { path: path.to_owned(), found: found.clone() }),
            None => return Err(damaged("it says no version".into())),
        }
        let kept: Self = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        let is_time = |seconds: &f64| seconds.is_finite() && *seconds > 0.0;
        let has_times = |times: &[f64]| !times.is_empty() && times.iter().all(is_time);
        if !has_times(&kept.probe.seconds) {
            return Err(damaged("its probe has no times".into()));
        }
        match kept.subjects.iter().find(|subject| !has_times(&subject.series.wall_s)) {
            Some(subject) => Err(damaged(format!("`{}` has no times", subject.name))),
            None => Ok(kept),
        }
    }

    /// Whether it can be held against this one, by the subjects that are measured here, their rounds still to come; `path` is its
    /// file.
    pub fn fits(&self, machine: &str, subjects: &[&Subject], path: &Path) -> Result<(), KeptError> {
        let path = || path.to_owned();
        if self.machine != machine {
            return Err(KeptError::Machine { path: path(), then: self.machine.clone(), now: machine.into() });
        }
        for subject in subjects {
            let Some(then) = self.subject(subject) else {
                let has = self.subjects.iter().map(Subject::text).collect();
                return Err(KeptError::Lacks { path: path(), subject: subject.text(), has });
            };
            if let (Some(then), Some(now)) = (&then.model, &subject.model)
                && then.workload.work != now.workload.work
            {
                let (name, then, now) = (now.workload.name.clone(), then.workload.work, now.workload.work);
                return Err(KeptError::Workload { path: path(), name, then, now });
            }
        }
        Ok(())
    }

    fn subject(&self, now: &Subject) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.names() == now.names())
    }

    /// Holds this measurement against an earlier one that fits it: subjects that this one has are in both.
    pub fn against(&self, then: &Kept, slowdown: f64, seed: u64) -> Against {
        let pace = median_of(&self.probe.seconds) / median_of(&then.probe.seconds);
        let unknown = match () {
            () if !self.busy.is_empty() => Some("the machine was busy".to_owned()),
            () if !then.busy.is_empty() => Some("the machine was busy when the baseline was measured".to_owned()),
            () if self.probe.steps != then.probe.steps => Some("the baseline is by another probe".to_owned()),
            () if (pace - 1.0).abs() > PACE_MAX => {
                let slower = if pace > 1.0 { "slower" } else { "quicker" };
                let by = 100.0 * (pace - 1.0).abs();
                Some(format!("the machine itself is {by:.0} % {slower} than when the baseline was measured"))
            }
            () => None,
        };
        let row = |now: &Subject| {
            let before = &then.subject(now)?.series.wall_s;
            let times = &now.series.wall_s;
            let e = apart((times, &self.probe.seconds), (before, &then.probe.seconds), seed);
            let verdict = match () {
                () if unknown.is_some() => Verdict::Unknown,
                () if e.low > 1.0 + slowdown => Verdict::Slower,
                () if e.high < 1.0 => Verdict::Quicker,
                () => Verdict::Within,
            };
            let ratio = Ratio::of(e, unknown.is_none());
            let (then_s, now_s) = (median_of(before), median_of(times));
            Some(Row { subject: now.text(), then_s, now_s, ratio, verdict })
        };
        let rows = self.subjects.iter().filter_map(row).collect();
        Against { slowdown, pace, unknown, rows }
    }
}

/// Where the machine's own pace changed by more than this, dividing it out is no longer believed: memory and disk do not
/// follow the clock.
const PACE_MAX: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rng::Rng;
    use crate::measure::Sample;
    use crate::measure::rounds::tests::{Made, TERMS};
    use crate::measure::rounds::{Terms, measure};

    /// A measurement of a program that takes a tenth of a second times `factor`, on a machine of this pace.
    fn measured(rng: &mut Rng, factor: f64, pace: f64) -> Kept {
        let mut time = |_: usize, _: usize| {
            let held_up = if rng.below(20) == 0 { 0.3 } else { 0.0 };
            0.1 * factor * pace * (1.0 + 0.02 * f64::from(rng.normal()) + held_up)
        };
        let terms = Terms { min: 30, max: 30, ..TERMS };
        let found = measure(&mut Made::new(1, &mut time), 1, &terms).unwrap();
        let probe = Probe { steps: 1, seconds: found.probe_s.iter().map(|seconds| seconds * pace).collect() };
        Kept {
            version: VERSION,
            label: "reports/x".into(),
            machine: "one".into(),
            warm_up: found.warm_up,
            set_aside: found.set_aside,
            is_steady: found.is_steady,
            subjects: vec![Subject {
                name: "x".into(),
                run: vec!["x".into()],
                environment: None,
                series: found.series.into_iter().next().unwrap(),
                ..Subject::default()
            }],
            probe,
            noise: Noise::default(),
            busy: Vec::new(),
        }
    }

    fn verdict(now: &Kept, then: &Kept, slowdown: f64) -> Verdict {
        now.against(then, slowdown, 1).rows[0].verdict
    }

    #[test]
    fn five_per_cent_are_found_and_what_is_the_same_is_not() {
        let mut rng = Rng::new(11, "gate");
        let mut slower = |factor| {
            let (then, now) = (measured(&mut rng, 1.0, 1.0), measured(&mut rng, factor, 1.0));
            verdict(&now, &then, 0.02) == Verdict::Slower
        };
        let alarms = (0..200).filter(|_| slower(1.0)).count();
        assert!(alarms <= 2, "{alarms} of 200 that are the same");
        let found = (0..20).filter(|_| slower(1.05)).count();
        assert!(found >= 18, "{found} of 20");
    }

    #[test]
    fn the_machines_pace_is_divided_out_until_it_is_not_believed() {
        let mut rng = Rng::new(12, "pace");
        let then = measured(&mut rng, 1.0, 1.0);
        assert_eq!(verdict(&measured(&mut rng, 1.0, 1.08), &then, 0.02), Verdict::Within);
        assert_eq!(verdict(&measured(&mut rng, 1.08, 1.08), &then, 0.02), Verdict::Slower);
        assert_eq!(verdict(&measured(&mut rng, 0.9, 1.0), &then, 0.02), Verdict::Quicker);
        let hot = measured(&mut rng, 1.0, 1.3).against(&then, 0.02, 1);
        let why = "the machine itself is 30 % slower than when the baseline was measured";
        assert_eq!((hot.unknown.as_deref(), hot.rows[0].verdict), (Some(why), Verdict::Unknown));
        assert!(!hot.rows[0].ratio.stands_out);
    }

    #[test]
    fn on_a_busy_machine_nothing_is_said() {
        let mut rng = Rng::new(13, "busy");
        let (then, mut now) = (measured(&mut rng, 1.0, 1.0), measured(&mut rng, 1.5, 1.0));
        now.busy = vec!["other programs kept 1.4 cores busy".into()];
        assert_eq!(verdict(&now, &then, 0.02), Verdict::Unknown);
        assert_eq!(verdict(&then, &now, 0.02), Verdict::Unknown);
    }

    #[test]
    fn what_is_no_baseline_is_one_error() {
        let mut rng = Rng::new(14, "errors");
        let mut kept = measured(&mut rng, 1.0, 1.0);
        kept.subjects[0].series.push(Sample { wall_s: 0.1, cpu_s: 0.1, peak_bytes: 7, first_s: None });
        let path = Path::new("b.json");
        let says = |text: &str| {
            let failure = Failure::from(Kept::parse(text, path).unwrap_err());
            assert_eq!(failure.class.exit_code(), 2);
            assert!(failure.help.is_some());
            failure.message
        };
        let text = kept.to_json();
        let again = Kept::parse(&text, path).unwrap();
        let apart = |(a, b): (&f64, &f64)| (a - b).abs();
        let (there, here) = (&again.subjects[0].series, &kept.subjects[0].series);
        // Read as JSON, the last bit of a number may be another.
        assert!(there.wall_s.iter().zip(&here.wall_s).map(apart).all(|apart| apart < 1e-12));
        assert_eq!((there.wall_s.len(), &there.peak_bytes), (here.wall_s.len(), &here.peak_bytes));
        assert!(says(&text[..text.len() / 2]).starts_with("the baseline b.json is damaged: EOF"));
        assert!(says("{}").ends_with("it says no version"));
        let other = text.replacen("\"version\":2", "\"version\":1", 1);
        assert_eq!(says(&other), "the baseline b.json is of version 1, and this effai reads version 2");
        kept.subjects[0].series.wall_s.clear();
        assert!(says(&kept.to_json()).ends_with("`x` has no times"));
        let subject = |name: &str, model| Subject { name: name.into(), model, ..Subject::default() };
        let fits = |machine: &str, subject: &Subject| kept.fits(machine, &[subject], path).map_err(|e| e.to_string());
        let unfit = |machine: &str, name: &str| fits(machine, &subject(name, None)).unwrap_err();
        assert_eq!(unfit("two", "x"), "the baseline b.json is of another machine: one; this one is two");
        assert_eq!(unfit("one", "y"), "the baseline b.json has no subject `y`");
        assert!(fits("one", &subject("x", None)).is_ok());
    }

    #[test]
    fn what_a_model_did_is_held_against_the_same_of_it() {
        let mut kept = measured(&mut Rng::new(15, "models"), 1.0, 1.0);
        let of = |name: &str, generate, backend| Subject {
            name: "x".into(),
            model: Some(OfModel {
                label: "models/x".into(),
                backend: By::Backend(backend),
                workload: Workload { name: name.into(), work: Work::Tokens { prompt: 8, generate } },
                memory: Some(Memory { weight_bytes: 7, token_bytes: Some(3), ..Memory::default() }),
            }),
            series: kept.subjects[0].series.clone(),
            ..Subject::default()
        };
        let chat = of("chat", 4, Backend::Candle);
        let others = [of("chat", 5, Backend::Candle), of("long", 4, Backend::Candle), of("chat", 4, Backend::Mlx)];
        kept.subjects = vec![chat.clone()];
        let path = Path::new("b.json");
        let kept = Kept::parse(&kept.to_json(), path).unwrap();
        assert_eq!((&kept.subjects[0].model, kept.subjects[0].text().as_str()), (&chat.model, "x (chat, candle)"));
        assert!(kept.fits("one", &[&chat], path).is_ok());
        let unfit = others.each_ref().map(|other| kept.fits("one", &[other], path).unwrap_err().to_string());
        let expected = [
            "in the baseline b.json the workload `chat` is prompt=8 generate=4, and here it is prompt=8 generate=5",
            "the baseline b.json has no subject `x (long, candle)`",
            "the baseline b.json has no subject `x (chat, mlx)`",
        ];
        assert_eq!(unfit, expected);
        assert_eq!(kept.against(&kept, 0.02, 1).rows[0].subject, "x (chat, candle)");
    }
}
