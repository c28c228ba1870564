//! `benchmark`: how long programs take on this machine, beside one another and beside what they took before.

use std::path::Path;

use serde::Deserialize;

use super::command::{self, RUN};
use super::workplace::{ENV, Given, INPUT, NEEDS, PASS, READS, UNTRACKED};
use super::{ActionCx, How, Kind, Needs, Pool, Run, report};
use crate::action::program::Program;
use crate::action::timed::Timed;
use crate::failure::Failure;
use crate::measure::kept::{self, Against, Kept, Verdict};
use crate::measure::noise::Watch;
use crate::measure::probe::{self, Probe};
use crate::measure::rounds::{self, Bench, Measured, Terms};
use crate::measure::{Sample, noise::Noise};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::report::numbers::{Numbers, Of, Subject, VERSION_OF_TIMING};
use crate::report::retrieval::page::Examples;
use crate::report::timing::words::{busy_text, held};
use crate::report::timing::{Precision, Timing};
use crate::report::{figures, words};
use crate::util::{fs, machine};

/// The kind.
#[derive(Debug)]
pub struct Benchmark;

/// The file of every sample, which is what a baseline is.
pub const BENCHMARK: &str = "benchmark.json";

static SCHEMA: Schema = Schema::new(
    "benchmark",
    "How long programs take on this machine: beside one another, round by round, and beside a baseline, where it fails when one \
     of them has become slower.",
)
.children(&[
    Schema::new("subject", "A program that is timed; the first is what the others are compared with.")
        .arg("name", Type::Text)
        .children(&[RUN.required()])
        .some(),
    INPUT,
    NEEDS,
    Schema::new("rounds", "How often each subject runs, after those that warm up.").props(&[
        Prop::new("min", Type::Int(3, 100_000), "at least, however long it takes; 10 where it is not said"),
        Prop::new("max", Type::Int(3, 100_000), "at most; 1000 where it is not said"),
        Prop::new("within", Type::Span, "no more begin after this time, all subjects together; 30 s where it is not said"),
    ]),
    Schema::new(
        "precision",
        "Rounds end when the 95 % interval of each median reaches no further than this share of it to either side; 0.02 \
         where it is not said.",
    )
    .arg("share", Type::FloatAbove(0.0, 1.0)),
    Schema::new(
        "baseline",
        "A `benchmark.json` that an earlier build of this target made on this machine. The target fails when a subject is \
         surely slower than there.",
    )
    .arg("path", Type::File)
    .props(&[Prop::new("slowdown", Type::Float(0.0, 100.0), "slower by this share is allowed")
        .default(Default::Float(0.02))]),
    Schema::new("seed", "Of the order within rounds and of intervals.")
        .arg("seed", Type::Int(0, i64::MAX))
        .default(Default::Int(0)),
    ENV,
    PASS,
    READS,
    UNTRACKED,
]);

#[derive(Deserialize)]
struct Fields {
    subject: Vec<Timee>,
    rounds: Option<Rounds>,
    precision: Option<f64>,
    baseline: Option<Baseline>,
    seed: u64,
}

/// What is timed.
#[derive(Deserialize)]
struct Timee {
    name: String,
    run: Vec<String>,
}

#[derive(Deserialize)]
struct Rounds {
    min: Option<usize>,
    max: Option<usize>,
    within: Option<f64>,
}

#[derive(Deserialize)]
struct Baseline {
    path: String,
    slowdown: f64,
}

/// Where it is not said: rounds, seconds, and how well a median is to be known.
const ROUNDS_MIN: usize = 10;
const ROUNDS_MAX: usize = 1000;
const WITHIN_S: f64 = 30.0;
const PRECISION: f64 = 0.02;
/// What other programs take shows in hundredths of a second; a second of them says enough.
const AT_LEAST_S: f64 = 1.0;

impl Fields {
    fn terms(&self) -> Terms {
        let Rounds { min, max, within } =
            self.rounds.as_ref().unwrap_or(&Rounds { min: None, max: None, within: None });
        let (min, max) = (*min, *max);
        Terms {
            // One that is said alone takes the other one along.
            min: min.unwrap_or(ROUNDS_MIN.min(max.unwrap_or(ROUNDS_MIN))),
            max: max.unwrap_or(ROUNDS_MAX.max(min.unwrap_or(ROUNDS_MAX))),
            within_s: within.unwrap_or(WITHIN_S),
            at_least_s: AT_LEAST_S,
            precision: self.precision.unwrap_or(PRECISION),
            seed: self.seed,
        }
    }
}

impl Kind for Benchmark {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        for (i, subject) in fields.subject.iter().enumerate() {
            if fields.subject[..i].iter().any(|other| other.name == subject.name) {
                let message = format!("there are two subjects `{}`", subject.name);
                problems.at(&format!("subject.{i}"), message, "the second", "give one of them another name");
            }
        }
        let terms = fields.terms();
        if terms.min > terms.max {
            let message = format!("at least {} rounds are more than at most {}", terms.min, terms.max);
            problems.at("rounds.min", message, "the least", "make `min` the smaller of the two");
        }
        decl.read::<Given>().check(problems);
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, repeatable: false, measures: true }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Benchmark {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let machine = machine::identity();
        // Before anything runs for half a minute.
        let baseline = fields.baseline.as_ref().map(|baseline| read(cx, &fields, baseline, &machine)).transpose()?;
        let terms = fields.terms();
        let (measured, noise) = measure(cx, &fields, &terms)?;
        let floor_bytes = machine::peak_bytes();
        let (kept, is_precise) = keep(cx, &fields, measured, noise, machine);
        let against = baseline.map(|(then, slowdown)| kept.against(&then, slowdown, fields.seed));
        let precision = Precision { asked: terms.precision, is_reached: is_precise };
        let timing = Timing::of(&kept, precision, floor_bytes, against.clone(), fields.seed);
        for row in &timing.rows {
            cx.metric(&format!("{}.p50_s", row.subject), row.summary.p50_s.value);
        }
        write(cx, &fields, &kept, timing)?;
        if let Some(busy) = busy_text(&kept.busy) {
            let help = format!("build again when nothing else runs: effai build --force {}", cx.decl.label);
            cx.warning(busy, Some(help));
        }
        match (&fields.baseline, &against) {
            (Some(baseline), Some(against)) => judge(cx, baseline, against),
            _ => Ok(()),
        }
    }
}

/// The earlier measurement, and by how much a subject may be slower.
fn read(cx: &ActionCx<'_>, fields: &Fields, baseline: &Baseline, machine: &str) -> Result<(Kept, f64), Failure> {
    let path = Path::new(&baseline.path);
    let then = Kept::read(&cx.project_file(path), path)?;
    let names: Vec<&str> = fields.subject.iter().map(|subject| subject.name.as_str()).collect();
    then.fits(machine, &names, path)?;
    Ok((then, baseline.slowdown))
}

/// Programs that take turns, and the machine that is looked at beside them.
struct Programs<'a, 'b> {
    cx: &'a mut ActionCx<'b>,
    run: &'a mut dyn FnMut(usize) -> Result<Sample, Failure>,
    names: Vec<&'a str>,
    watch: Watch,
    rounds_max: usize,
}

impl Bench for Programs<'_, '_> {
    type Error = Failure;

    fn run(&mut self, subject: usize) -> Result<Sample, Failure> {
        (self.run)(subject).map_err(|failure| failure.within(format!("subject `{}`", self.names[subject])))
    }

    fn probe(&mut self) -> f64 {
        self.watch.look();
        probe::probe()
    }

    fn ended(&mut self, rounds: usize) {
        self.cx.progress("rounds", rounds as u64, self.rounds_max as u64, "rounds");
    }
}

fn measure(cx: &mut ActionCx<'_>, fields: &Fields, terms: &Terms) -> Result<(Measured, Noise), Failure> {
    // What is given to one is given to all.
    let given = cx.decl.read::<Given>().lay_out(cx, Program::new(""), None)?;
    let programs = fields.subject.iter().map(|subject| command::program(&subject.run).given(&given)).collect();
    let timed = Timed::new(cx, programs)?;
    timed.run(|run| {
        let names = fields.subject.iter().map(|subject| subject.name.as_str()).collect();
        let mut bench = Programs { cx, run, names, watch: Watch::begin(), rounds_max: terms.max };
        let measured = rounds::measure(&mut bench, fields.subject.len(), terms)?;
        Ok((measured, bench.watch.end()))
    })?
}

/// What was measured, and whether it is known as well as was asked.
fn keep(cx: &ActionCx<'_>, fields: &Fields, measured: Measured, noise: Noise, machine: String) -> (Kept, bool) {
    let probe = Probe { steps: probe::STEPS, seconds: measured.probe_s };
    let subject =
        |(subject, series): (&Timee, _)| kept::Subject { name: subject.name.clone(), run: subject.run.clone(), series };
    let kept = Kept {
        version: kept::VERSION,
        label: cx.decl.label.to_string(),
        machine,
        warm_up: measured.warm_up,
        is_steady: measured.is_steady,
        subjects: fields.subject.iter().zip(measured.series).map(subject).collect(),
        busy: noise.busy(&probe),
        probe,
        noise,
    };
    (kept, measured.is_precise)
}

fn write(cx: &ActionCx<'_>, fields: &Fields, kept: &Kept, timing: Timing) -> Result<(), Failure> {
    let subject = |subject: &kept::Subject| Subject {
        label: subject.name.clone(),
        name: subject.name.clone(),
        ..Subject::default()
    };
    let mut numbers = Numbers {
        version: VERSION_OF_TIMING,
        of: Of::Timing,
        label: kept.label.clone(),
        machine: kept.machine.clone(),
        seed: fields.seed,
        subjects: kept.subjects.iter().map(subject).collect(),
        timing: Some(timing),
        ..Numbers::default()
    };
    numbers.headline = words::headline(&numbers);
    fs::write(&cx.out().join(BENCHMARK), kept.to_json().as_bytes())?;
    report::write(cx, &numbers, &figures::all(&numbers, &[]), &Examples::default())
}

/// Fails where a subject is surely slower than it may be.
fn judge(cx: &mut ActionCx<'_>, baseline: &Baseline, against: &Against) -> Result<(), Failure> {
    if let Some(why) = &against.unknown {
        let help = format!("what is measured now stands beside {} all the same, in the report", baseline.path);
        cx.warning(format!("not held against the baseline: {why}"), Some(help));
    }
    let slower: Vec<String> = against
        .rows
        .iter()
        .filter(|row| row.verdict == Verdict::Slower)
        .map(|row| held(row, against.slowdown))
        .collect();
    if slower.is_empty() {
        return Ok(());
    }
    let out = cx.out().display();
    let help = format!("look at {out}/report.html; to accept it: cp {out}/{BENCHMARK} {}", baseline.path);
    Err(Failure::target(slower.join("\n  ")).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_rounds_that_is_said_alone_takes_the_other_along() {
        let of = |min, max| {
            let rounds = Some(Rounds { min, max, within: None });
            let fields = Fields { subject: Vec::new(), rounds, precision: None, baseline: None, seed: 0 };
            let terms = fields.terms();
            (terms.min, terms.max)
        };
        assert_eq!([of(None, None), of(Some(2000), None), of(None, Some(5))], [(10, 1000), (2000, 2000), (5, 5)]);
    }
}
