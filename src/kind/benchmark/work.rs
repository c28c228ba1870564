//! A model in a process of its own: it is opened, and then does what it is asked to, round by round. The clock is read here,
//! around the work alone.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::action::worker::Calls;
use crate::backend::rng::Rng;
use crate::backend::{Backend, Tensor, Texts};
use crate::failure::Failure;
use crate::kind::speed::{force, most_likely};
use crate::measure::workload::Work;
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

/// A model that is open, in the form in which it does its work.
enum Ready<T: Tensor> {
    Language(Box<Language<T>>),
    Encoder(Box<Model<T>>),
}

/// What a round is given, made before the clock starts.
enum Given<T> {
    /// A prompt, and how many tokens follow.
    Tokens(Vec<u32>, usize),
    Texts(Texts),
    Pictures(T),
}

/// Opens the model, says so, and does one of its works whenever it is asked.
pub(super) fn serve<T: Tensor>(task: &Task, calls: &mut Calls) -> Result<(), Failure> {
    let fetched = pages::fetched_bytes();
    let clock = Clock::begin();
    let ready = Ready::<T>::open(task)?;
    let (wall_s, cpu_s) = clock.end();
    let fetched_bytes = pages::fetched_bytes().zip(fetched).map(|(now, before)| now - before);
    let (peak_bytes, resident_bytes) = (machine::peak_bytes(), machine::resident_bytes());
    let (weights, config) = (&ready.model().weights, &ready.model().config);
    let token_bytes = match config {
        Config::Llama(config) => Some(Footprint::of(config).token_bytes),
        _ => None,
    };
    let weight_bytes = weights.size(|_| true).1;
    let given: Vec<Given<T>> = task.works.iter().map(|work| ready.given(*work, task.seed)).collect::<Result<_, _>>()?;
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

impl<T: Tensor> Ready<T> {
    /// As `speed` and `effai run` open it: quantized matrices stay so where they can.
    fn open(task: &Task) -> Result<Self, Failure> {
        let (dir, base) = (&task.dir, task.base.as_deref());
        if let Config::Llama(_) = Config::read(base.unwrap_or(dir))? {
            return Ok(Self::Language(Box::new(Language::open(dir, base, &task.label)?.0)));
        }
        Ok(Self::Encoder(Box::new(Model::new(&Checkpoint::open_as_codes(dir, base)?)?)))
    }

    fn model(&self) -> &Model<T> {
        match self {
            Ready::Language(language) => &language.model,
            Ready::Encoder(model) => model,
        }
    }

    fn given(&self, work: Work, seed: u64) -> Result<Given<T>, Failure> {
        let mut rng = Rng::new(seed, "benchmark");
        let mut drawn =
            |length: usize, known: usize| -> Vec<u32> { (0..length).map(|_| rng.below(known) as u32).collect() };
        Ok(match (work, self) {
            (Work::Tokens { prompt, generate }, Ready::Language(language)) => {
                Given::Tokens(drawn(prompt, language.config.vocab_size), generate)
            }
            (Work::Texts { texts, length }, Ready::Encoder(model)) => {
                // Where a text begins and ends is what a tokenizer says: encoders look there.
                let frame = model.tokenize(&["a"])?.remove(0);
                let known = model.config.tokens().map_or(1, |(known, _)| known);
                let text = |_| {
                    let mut text = drawn(length, known);
                    for (place, end) in [(0, frame.first()), (length - 1, frame.last())] {
                        text[place] = *end.unwrap_or(&text[place]);
                    }
                    text
                };
                Given::Texts(Texts::new(&(0..texts).map(text).collect::<Vec<_>>()))
            }
            (Work::Pictures { pictures, size }, Ready::Encoder(_)) => {
                let values: Vec<f32> = (0..pictures * size * size * 3).map(|_| rng.between(-1.0, 1.0)).collect();
                Given::Pictures(T::from_f32(&values, &[pictures, size, size, 3])?)
            }
            _ => return Err(Failure::target(format!("this model does no work of the form {work}"))),
        })
    }

    /// One round; of a language model, how long it took until the first token was known.
    fn run(&self, given: &Given<T>, clock: &Clock) -> Result<Option<f64>, Failure> {
        match (given, self) {
            (Given::Tokens(prompt, generate), Ready::Language(language)) => {
                let mut cache = Cache::default();
                let mut next = most_likely(language, prompt, &mut cache)?;
                let first_s = clock.begin.elapsed().as_secs_f64();
                for _ in 0..*generate {
                    next = most_likely(language, &[next], &mut cache)?;
                }
                return Ok(Some(first_s));
            }
            (Given::Texts(texts), _) => force(&self.model().text_batch(texts, None)?)?,
            (Given::Pictures(pictures), _) => force(&self.model().picture_batch(pictures)?)?,
            (Given::Tokens(..), Ready::Encoder(_)) => unreachable!("only a language model was given tokens"),
        }
        Ok(None)
    }
}
