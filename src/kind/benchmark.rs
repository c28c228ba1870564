//! `benchmark`: how long programs take on this machine, and what models are asked to do: beside one another and beside what they
//! took before. `benchmark/models.rs` has the models, `benchmark/work.rs` what happens in their processes.

mod models;
mod work;

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use super::command::{self, RUN};
use super::python::surroundings;
use super::workplace::{ENV, Given, INPUT, NEEDS, PASS, READS, UNTRACKED};
use super::{ActionCx, How, Kind, Needs, Pool, Run, Serve, report};
use crate::action::program::Program;
use crate::action::timed::Timed;
use crate::action::worker::{Calls, Workers};
use crate::backend::{self, Backend};
use crate::event::ActionEvent;
use crate::failure::Failure;
use crate::measure::kept::{self, Against, Kept, Verdict};
use crate::measure::noise::Watch;
use crate::measure::probe::{self, Probe};
use crate::measure::rounds::{self, Bench, Measured, Terms};
use crate::measure::workload::Load;
use crate::measure::{Sample, noise::Noise};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::report::numbers::{Numbers, Of, VERSION_OF_TIMING};
use crate::report::retrieval::page::Examples;
use crate::report::timing::words::{busy_text, held};
use crate::report::timing::{Precision, Row, Timing, subjects};
use crate::report::{figures, words};
use crate::util::{fs, machine};

use models::{Asked, Models};
use work::{Task, serve};

/// The kind.
#[derive(Debug)]
pub struct Benchmark;

/// The file of every sample, which is what a baseline is.
pub const BENCHMARK: &str = "benchmark.json";

static SCHEMA: Schema = Schema::new(
    "benchmark",
    "How long programs take on this machine, and what models are asked to do: beside one another, round by round, and beside a \
     baseline, where it fails when one of them has become slower.",
)
.children(&[
    Schema::new("subject", "A program or a model that is timed; the first is what the others are compared with.")
        .arg("name", Type::Text)
        .props(&[
            Prop::new(
                "model",
                Type::NamedLabel,
                "a model, an adapter, a quantized model, or an `onnx` or `tflite` export, which is asked to do the workloads",
            ),
            Prop::new(
                "environment",
                Type::Of("environment"),
                "the `environment` in which `run` runs: its `python` and what else it has come before those of the search path",
            ),
        ])
        .children(&[RUN])
        .some(),
    Schema::new(
        "workload",
        "What each model does in a round. Where none is said, language models have prompt=256 generate=64, and encoders \
         texts=16 length=32, pictures=16 or both.",
    )
    .arg("name", Type::Text)
    .props(&[
        Prop::new("prompt", Type::Int(1, 1 << 20), "language models: tokens that are drawn, and read at once"),
        Prop::new(
            "generate",
            Type::Int(1, 1 << 20),
            "language models: tokens that are generated after the one that follows the prompt; none where it is not said",
        ),
        Prop::new("texts", Type::Int(1, 1 << 16), "encoders of texts: how many are encoded at once"),
        Prop::new("length", Type::Int(1, 1 << 16), "encoders of texts: tokens of each, which are drawn; 32 where it is not said"),
        Prop::new("pictures", Type::Int(1, 1 << 16), "encoders of pictures: how many are encoded at once"),
        Prop::new(
            "size",
            Type::Int(8, 4096),
            "encoders of pictures: pixels a side; the model's own where it is not said",
        ),
        Prop::new(
            "load",
            Type::Choice(Load::NAMES),
            "the model is opened in a new process: from the disk, or from files that were read lately",
        ),
    ])
    .many(),
    Schema::new(
        "backend",
        "What computes what models do: each does so by each of them; where it is not said, what `--backend` says, or the best \
         there is.",
    )
    .many_args("names", Type::Choice(backend::NAMES)),
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
    #[serde(default)]
    workload: Vec<Asked>,
    #[serde(default)]
    backend: Vec<Backend>,
    rounds: Option<Rounds>,
    precision: Option<f64>,
    baseline: Option<Baseline>,
    seed: u64,
}

/// What is timed: a program or a model.
#[derive(Deserialize)]
struct Timee {
    name: String,
    run: Option<Vec<String>>,
    model: Option<String>,
    environment: Option<String>,
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

    /// 1: first. 2: models. 3: pictures' values become a tensor within the round. 4: a
    /// probe that a neighbour on the core slows down, and rounds that are set aside.
    fn version(&self) -> u32 {
        4
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        for (i, subject) in fields.subject.iter().enumerate() {
            if fields.subject[..i].iter().any(|other| other.name == subject.name) {
                let message = format!("there are two subjects `{}`", subject.name);
                problems.at(&format!("subject.{i}"), message, "the second", "give one of them another name");
            }
        }
        for (i, Timee { name, run, model, environment }) in fields.subject.iter().enumerate() {
            if environment.is_some() && run.is_none() {
                let message = format!("the subject `{name}` runs no program, and `environment` is of programs");
                problems.at(&format!("subject.{i}.environment"), message, "given here", "leave it out, or write `run`");
            }
            let (message, mark) = match (run, model) {
                (None, None) => (format!("the subject `{name}` says neither `run` nor `model`"), "nothing to time"),
                (Some(_), Some(_)) => (format!("the subject `{name}` is a program and a model"), "both of them"),
                _ => continue,
            };
            problems.at(&format!("subject.{i}"), message, mark, "a program has `run`, a model model=\"models/...\"");
        }
        for (i, workload) in fields.workload.iter().enumerate() {
            let path = format!("workload.{i}");
            if fields.workload[..i].iter().any(|other| other.name() == workload.name()) {
                let message = format!("there are two workloads `{}`", workload.name());
                problems.at(&path, message, "the second", "give one of them another name");
            }
            workload.check(&path, problems);
        }
        for (i, backend) in fields.backend.iter().enumerate() {
            if fields.backend[..i].contains(backend) {
                let message = format!("the backend {} is there twice", backend.name());
                problems.at(&format!("backend.{i}"), message, "again", "leave one of them out");
            }
        }
        if fields.subject.iter().all(|subject| subject.model.is_none()) {
            let of = [("workload.0", !fields.workload.is_empty()), ("backend.0", !fields.backend.is_empty())];
            for (path, _) in of.into_iter().filter(|(_, is_given)| *is_given) {
                let name = path.trim_end_matches(".0");
                let message = format!("`{name}` is of models, and no subject is one");
                problems.at(path, message, "of models", "leave it out, or have a subject with model=\"models/...\"");
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

    fn weighs(&self, decl: &Decl) -> &'static [&'static str] {
        if decl.fields["workload"].as_array().is_some_and(|all| !all.is_empty()) { &["workload"] } else { &[] }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }

    fn serves(&self) -> Option<&dyn Serve> {
        Some(self)
    }
}

impl Serve for Benchmark {
    fn serve(&self, task: Value, calls: &mut Calls) -> Result<(), Failure> {
        let task: Task = serde_json::from_value(task).expect("the same program asks");
        serve(&task, calls)
    }
}

impl Run for Benchmark {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let machine = machine::identity();
        let mut models = models(cx, &fields)?;
        // Before anything runs for half a minute.
        let subjects = timed(&fields, &models);
        let baseline = fields.baseline.as_ref().map(|baseline| read(cx, &subjects, baseline, &machine)).transpose()?;
        let terms = fields.terms();
        let (measured, noise) = measure(cx, &fields, &mut models, &terms)?;
        let floor_bytes = machine::peak_bytes();
        let (kept, is_precise) = keep(cx, timed(&fields, &models), measured, noise, machine);
        let against = baseline.map(|(then, slowdown)| kept.against(&then, slowdown, fields.seed));
        let precision = Precision { asked: terms.precision, is_reached: is_precise };
        let timing = Timing::of(&kept, precision, floor_bytes, against.clone(), fields.seed);
        for row in &timing.rows {
            let metric = metric(row, fields.backend.len() > 1);
            cx.metric(&format!("{metric}.p50_s"), row.summary.p50_s.value);
            for rate in &row.rates {
                cx.metric(&format!("{metric}.{}", rate.metric()), rate.per_s.value);
            }
        }
        write(cx, &fields, &kept, timing, models.left_out)?;
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

/// What a row's numbers are called: by its subject, of a model also by the workload, and by the backend where there are
/// several.
fn metric(row: &Row, are_several: bool) -> String {
    let of = row.model.as_ref();
    let backend = of.filter(|_| are_several).map(|model| model.backend.name());
    let more = of.map(|model| model.workload.name.as_str()).into_iter().chain(backend);
    [row.subject.as_str()].into_iter().chain(more).collect::<Vec<_>>().join(".")
}

/// The models among the subjects, and what each is asked to do by what.
fn models(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<Models, Failure> {
    let named = fields.subject.iter().filter_map(|subject| Some((subject.name.as_str(), subject.model.as_deref()?)));
    let measured = named.map(|(name, label)| models::Measured::of(cx, name, label, &fields.workload, fields.seed));
    let measured: Vec<models::Measured> = measured.collect::<Result<_, _>>()?;
    let backends = match &fields.backend[..] {
        _ if measured.iter().all(|model| model.program.is_some()) => Vec::new(),
        [] => vec![cx.backend()?],
        several => several.to_vec(),
    };
    let mut by: Vec<&str> = backends.iter().map(|backend| backend.name()).collect();
    for (_, program) in measured.iter().filter_map(|model| model.program.as_ref()) {
        if !by.contains(&program.as_str()) {
            by.push(program);
        }
    }
    if !by.is_empty() {
        let name = by.join(", ");
        (cx.events)(ActionEvent::Backend { name });
    }
    Models::new(measured, &backends)
}

/// All that is timed, its rounds still to come: programs, then what models do.
fn timed(fields: &Fields, models: &Models) -> Vec<kept::Subject> {
    let programs = fields.subject.iter().filter_map(|subject| {
        let run = subject.run.clone()?;
        let (name, environment) = (subject.name.clone(), subject.environment.clone());
        Some(kept::Subject { name, run, environment, ..kept::Subject::default() })
    });
    let part = |part: &models::Part| {
        let (name, model) = (part.name.clone(), Some(part.model.clone()));
        kept::Subject { name, model, ..kept::Subject::default() }
    };
    programs.chain(models.parts.iter().map(part)).collect()
}

/// The earlier measurement, and by how much a subject may be slower.
fn read(
    cx: &ActionCx<'_>,
    subjects: &[kept::Subject],
    baseline: &Baseline,
    machine: &str,
) -> Result<(Kept, f64), Failure> {
    let path = Path::new(&baseline.path);
    let then = Kept::read(&cx.project_file(path), path)?;
    then.fits(machine, &subjects.iter().collect::<Vec<_>>(), path)?;
    Ok((then, baseline.slowdown))
}

/// Programs and models that take turns, and the machine that is looked at beside them.
struct InTurn<'a> {
    run: &'a mut dyn FnMut(usize) -> Result<Sample, Failure>,
    /// The programs' names; after them come the models' parts.
    programs: Vec<&'a str>,
    others: mpsc::Sender<Ask>,
    sampled: mpsc::Receiver<Result<(Sample, f64), Failure>>,
    /// CPU time of the models' processes, in seconds.
    spent_s: f64,
    watch: Watch,
    told: Instant,
}

/// What the thread that measures, which may do no more than the programs, asks of the one that began it.
enum Ask {
    /// One round of a part of the models.
    Round(usize),
    /// So many rounds have ended.
    Ended(usize),
}

/// Rounds are told no more often than this: whoever hears of one is woken.
const TOLD_AFTER: Duration = Duration::from_millis(100);
/// It serves until whoever asks is gone.
const SERVES: &str = "the thread that began this serves it";

impl Bench for InTurn<'_> {
    type Error = Failure;

    fn run(&mut self, subject: usize) -> Result<Sample, Failure> {
        if let Some(name) = self.programs.get(subject) {
            return (self.run)(subject).map_err(|failure| failure.within(format!("subject `{name}`")));
        }
        self.others.send(Ask::Round(subject - self.programs.len())).expect(SERVES);
        let (sample, spent_s) = self.sampled.recv().expect(SERVES)?;
        self.spent_s = spent_s;
        Ok(sample)
    }

    fn probe(&mut self) -> f64 {
        self.watch.look();
        probe::probe()
    }

    fn ended(&mut self, rounds: usize) {
        if self.told.elapsed() >= TOLD_AFTER {
            self.told = Instant::now();
            self.others.send(Ask::Ended(rounds)).expect(SERVES);
        }
    }
}

fn measure(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    models: &mut Models,
    terms: &Terms,
) -> Result<(Measured, Noise), Failure> {
    let workers = Workers::new(cx)?;
    models.look(cx, &workers)?;
    // What is given to one is given to all.
    let given = cx.decl.read::<Given>().lay_out(cx, Program::new(""), None)?;
    let named = || fields.subject.iter().filter_map(|subject| Some((subject, subject.run.as_ref()?)));
    let program = |(subject, run): (&Timee, &Vec<String>)| match &subject.environment {
        Some(environment) => Ok(surroundings::activated(cx, environment, run)?.given(&given)),
        None => Ok(command::program(run).given(&given)),
    };
    let programs = named().map(program).collect::<Result<_, Failure>>()?;
    let timed = Timed::new(cx, programs)?;
    let mut ready = models.open(&workers)?;
    let (others, asked) = mpsc::channel();
    let (tell, sampled) = mpsc::channel();
    let parts = models.parts.len();
    let work = |run: &mut dyn FnMut(usize) -> Result<Sample, Failure>| {
        let programs: Vec<&str> = named().map(|(subject, _)| subject.name.as_str()).collect();
        let (all, watch) = (programs.len() + parts, Watch::begin());
        let mut bench = InTurn { run, programs, others, sampled, spent_s: 0.0, watch, told: Instant::now() };
        let measured = rounds::measure(&mut bench, all, terms)?;
        Ok((measured, bench.watch.end(bench.spent_s)))
    };
    timed.run(work, || {
        for ask in asked {
            match ask {
                Ask::Ended(rounds) => cx.progress("rounds", rounds as u64, terms.max as u64, "rounds"),
                Ask::Round(part) => {
                    let sample = ready.run(part).map(|sample| (sample, ready.spent_s()));
                    // Whoever asked waits for it.
                    let _ = tell.send(sample);
                }
            }
        }
    })?
}

/// What was measured, and whether it is known as well as was asked.
fn keep(
    cx: &ActionCx<'_>,
    subjects: Vec<kept::Subject>,
    measured: Measured,
    noise: Noise,
    machine: String,
) -> (Kept, bool) {
    let probe = Probe { steps: probe::STEPS, seconds: measured.probe_s };
    let with = |(subject, series)| kept::Subject { series, ..subject };
    let kept = Kept {
        version: kept::VERSION,
        label: cx.decl.label.to_string(),
        machine,
        warm_up: measured.warm_up,
        is_steady: measured.is_steady,
        set_aside: measured.set_aside,
        subjects: subjects.into_iter().zip(measured.series).map(with).collect(),
        busy: noise.busy(&probe),
        probe,
        noise,
    };
    (kept, measured.is_precise)
}

fn write(
    cx: &ActionCx<'_>,
    fields: &Fields,
    kept: &Kept,
    timing: Timing,
    left_out: Vec<String>,
) -> Result<(), Failure> {
    let mut numbers = Numbers {
        version: VERSION_OF_TIMING,
        of: Of::Timing,
        label: kept.label.clone(),
        machine: kept.machine.clone(),
        seed: fields.seed,
        subjects: subjects(kept).0,
        timing: Some(timing),
        left_out,
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
            let (subject, workload, backend) = (Vec::new(), Vec::new(), Vec::new());
            let fields = Fields { subject, workload, backend, rounds, precision: None, baseline: None, seed: 0 };
            let terms = fields.terms();
            (terms.min, terms.max)
        };
        assert_eq!([of(None, None), of(Some(2000), None), of(None, Some(5))], [(10, 1000), (2000, 2000), (5, 5)]);
    }
}
