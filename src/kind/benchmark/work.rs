//! A model in a process of its own: it is opened, and then does what it is asked to, round by round. The clock is read here,
//! around the work alone.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::action::worker::Calls;
use crate::backend::rng::Rng;
use crate::backend::{Backend, Tensor, on_backend};
use crate::export::opened::{Exported, Read};
use crate::failure::Failure;
use crate::kind::exported::{Runs, weight_bytes};
use crate::kind::speed::{highest, most_likely};
use crate::measure::kept::By;
use crate::measure::workload::Work;
use crate::model::encoder::Encoder;
use crate::model::footprint::Footprint;
use crate::model::llama::Cache;
use crate::model::{Checkpoint, Config, Model};
use crate::train::language::Language;
use crate::util::{machine, pages};

/// What such a process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Task {
    /// The model's directory.
    pub(super) dir: PathBuf,
    /// Of an adapter, its base's.
    pub(super) base: Option<PathBuf>,
    /// Of an export, what runs it.
    pub(super) export: Option<Runs>,
    /// Threads of what runs an export.
    pub(super) threads: usize,
    /// The target, for errors.
    pub(super) label: String,
    pub(super) backend: Backend,
    /// What may be asked, by its place.
    pub(super) works: Vec<Work>,
    /// Of the tokens and pixels, which are drawn.
    pub(super) seed: u64,
    /// Each round tells its own peak of memory, and not the process's.
    pub(super) forgets_peak: bool,
}

/// What it says once the model is open.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    /// Opening it took so long.
    pub(super) wall_s: f64,
    /// CPU time likewise.
    pub(super) cpu_s: f64,
    /// The most memory until then.
    pub(super) peak_bytes: u64,
    /// What is held now.
    pub(super) resident_bytes: u64,
    /// The weights, by their shapes and types.
    pub(super) weight_bytes: u64,
    /// Keys and values of a token, of a language model.
    pub(super) token_bytes: Option<u64>,
    /// What the system fetched from disks meanwhile; none where it does not say.
    pub(super) fetched_bytes: Option<u64>,
    /// CPU time of the process so far.
    pub(super) spent_s: f64,
}

/// What it says of a round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Round {
    pub(super) wall_s: f64,
    pub(super) cpu_s: f64,
    /// Until the first token was known.
    pub(super) first_s: Option<f64>,
    pub(super) peak_bytes: u64,
    /// CPU time of the process so far.
    pub(super) spent_s: f64,
}

/// Wall time and this process's CPU time since a moment.
struct Clock {
    begin: Instant,
    spent_s: f64,
}

impl Clock {
    fn begin() -> Self {
        let spent_s = spent_s();
        Self { begin: Instant::now(), spent_s }
    }

    /// (wall, CPU) in seconds.
    fn end(&self) -> (f64, f64) {
        let wall_s = self.begin.elapsed().as_secs_f64();
        (wall_s, spent_s() - self.spent_s)
    }
}

/// CPU time of this process's threads, in seconds.
fn spent_s() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9
}

impl Task {
    /// The same by this backend; an export is run by its own program.
    pub(super) fn by(&self, by: &By) -> Self {
        match by {
            By::Backend(backend) => Self { backend: *backend, ..self.clone() },
            By::Program(_) => self.clone(),
        }
    }
}

/// A model that is open, in the form in which it does its work.
struct Ready {
    does: Does,
    config: Config,
    weight_bytes: u64,
}

enum Does {
    Language(Box<dyn Answers>),
    Encoder(Box<dyn Encoder>),
}

/// A language model that is asked.
trait Answers {
    /// Reads a prompt and generates; how long it took until the first token was known, in seconds.
    fn answer(&self, prompt: &[u32], generate: usize, clock: &Clock) -> Result<f64, Failure>;
}

impl<T: Tensor> Answers for Language<T> {
    fn answer(&self, prompt: &[u32], generate: usize, clock: &Clock) -> Result<f64, Failure> {
        answer(prompt, generate, clock, |ids, cache: &mut Cache<T>| most_likely(self, ids, cache))
    }
}

impl Answers for Exported {
    fn answer(&self, prompt: &[u32], generate: usize, clock: &Clock) -> Result<f64, Failure> {
        answer(prompt, generate, clock, |ids, read: &mut Read| Ok(highest(&self.go_on(ids, read)?)))
    }
}

/// `next` is given tokens and what was read before them, and says which is the most likely to follow.
fn answer<C: Default>(
    prompt: &[u32],
    generate: usize,
    clock: &Clock,
    next: impl Fn(&[u32], &mut C) -> Result<u32, Failure>,
) -> Result<f64, Failure> {
    let mut read = C::default();
    let mut last = next(prompt, &mut read)?;
    let first_s = clock.begin.elapsed().as_secs_f64();
    for _ in 0..generate {
        last = next(&[last], &mut read)?;
    }
    Ok(first_s)
}

/// What a round is given, made before the clock starts.
enum Given {
    /// A prompt, and how many tokens follow.
    Tokens(Vec<u32>, usize),
    Texts(Vec<Vec<u32>>),
    /// Values, of so many.
    Pictures(Vec<f32>, usize),
}

/// Opens the model, says so, and does one of its works whenever it is asked.
pub(super) fn serve(task: &Task, calls: &mut Calls) -> Result<(), Failure> {
    let fetched = pages::fetched_bytes();
    let clock = Clock::begin();
    let ready = match &task.export {
        Some(Runs { environment }) => Ready::exported(task, environment.as_deref())?,
        None => {
            task.backend.probe()?;
            on_backend!(task.backend, open(task))?
        }
    };
    let (wall_s, cpu_s) = clock.end();
    let fetched_bytes = pages::fetched_bytes().zip(fetched).map(|(now, before)| now - before);
    let (peak_bytes, resident_bytes) = (machine::peak_bytes(), machine::resident_bytes());
    let token_bytes = match &ready.config {
        Config::Llama(config) => Some(Footprint::of(config).token_bytes),
        _ => None,
    };
    let weight_bytes = ready.weight_bytes;
    let given: Vec<Given> = task.works.iter().map(|work| ready.given(*work, task.seed)).collect::<Result<_, _>>()?;
    calls.answer(&Opened {
        wall_s,
        cpu_s,
        peak_bytes,
        resident_bytes,
        weight_bytes,
        token_bytes,
        fetched_bytes,
        spent_s: spent_s(),
    });
    while let Some(given) = calls.next_work().and_then(|number| given.get(number)) {
        // Where the system does not do so, opening is in it, and it is not told.
        let has_own_peak = !task.forgets_peak || machine::forget_peak();
        let clock = Clock::begin();
        let first_s = ready.run(given, &clock)?;
        let (wall_s, cpu_s) = clock.end();
        let peak_bytes = if has_own_peak { machine::peak_bytes() } else { 0 };
        calls.answer(&Round { wall_s, cpu_s, first_s, peak_bytes, spent_s: spent_s() });
    }
    Ok(())
}

/// As `speed` and `effai run` open it: quantized matrices stay so where they can.
fn open<T: Tensor>(task: &Task) -> Result<Ready, Failure> {
    let (dir, base) = (&task.dir, task.base.as_deref());
    if let Config::Llama(_) = Config::read(base.unwrap_or(dir))? {
        let language = Language::<T>::open(dir, base, &task.label)?.0;
        let (config, weight_bytes) = (language.model.config.clone(), language.model.weights.size(|_| true).1);
        return Ok(Ready { does: Does::Language(Box::new(language)), config, weight_bytes });
    }
    let model = Model::<T>::new(&Checkpoint::open_as_codes(dir, base)?)?;
    let (config, weight_bytes) = (model.config.clone(), model.weights.size(|_| true).1);
    Ok(Ready { does: Does::Encoder(Box::new(model)), config, weight_bytes })
}

impl Ready {
    /// Of a file, whose weights take as much as it does.
    fn exported(task: &Task, environment: Option<&Path>) -> Result<Self, Failure> {
        let exported = Exported::open(&task.dir, environment, task.threads)?;
        let (config, weight_bytes) = (exported.config().clone(), weight_bytes(&task.dir)?);
        let does = match exported.language() {
            Ok(_) => Does::Language(Box::new(exported)),
            Err(_) => Does::Encoder(Box::new(exported)),
        };
        Ok(Self { does, config, weight_bytes })
    }

    fn given(&self, work: Work, seed: u64) -> Result<Given, Failure> {
        let mut rng = Rng::new(seed, "benchmark");
        let mut drawn =
            |length: usize, known: usize| -> Vec<u32> { (0..length).map(|_| rng.below(known) as u32).collect() };
        let known = self.config.tokens().map_or(1, |(known, _)| known);
        Ok(match (work, &self.does) {
            (Work::Tokens { prompt, generate }, Does::Language(_)) => Given::Tokens(drawn(prompt, known), generate),
            (Work::Texts { texts, length }, Does::Encoder(model)) => {
                // Where a text begins and ends is what a tokenizer says: encoders look there.
                let frame = model.tokenizer()?.all(&["a"])?.remove(0);
                let text = |_| {
                    let mut text = drawn(length, known);
                    for (place, end) in [(0, frame.first()), (length - 1, frame.last())] {
                        text[place] = *end.unwrap_or(&text[place]);
                    }
                    text
                };
                Given::Texts((0..texts).map(text).collect())
            }
            (Work::Pictures { pictures, size }, Does::Encoder(_)) => {
                let values = (0..pictures * size * size * 3).map(|_| rng.between(-1.0, 1.0)).collect();
                Given::Pictures(values, pictures)
            }
            _ => return Err(Failure::target(format!("this model does no work of the form {work}"))),
        })
    }

    /// One round; of a language model, how long it took until the first token was known.
    fn run(&self, given: &Given, clock: &Clock) -> Result<Option<f64>, Failure> {
        match (given, &self.does) {
            (Given::Tokens(prompt, generate), Does::Language(language)) => {
                return language.answer(prompt, *generate, clock).map(Some);
            }
            (Given::Texts(rows), Does::Encoder(model)) => model.texts(rows).map(drop)?,
            (Given::Pictures(values, count), Does::Encoder(model)) => model.pictures(values, *count).map(drop)?,
            _ => unreachable!("it was given what it does"),
        }
        Ok(None)
    }
}
