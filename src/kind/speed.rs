//! `speed`: how quick one model is on this machine, in a process of its own.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::exported::{exported, weight_bytes};
use super::features::base_of;
use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::rng::Rng;
use crate::backend::{Backend, Tensor, Texts, on_backend};
use crate::export::opened::Read;
use crate::failure::Failure;
use crate::model::encoder::Encoder;
use crate::model::llama::{self, Cache};
use crate::model::{Checkpoint, Config, Model};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Schema, Type};
use crate::train::language::Language;
use crate::util::{fs, machine};

/// The kind.
#[derive(Debug)]
pub struct Speed;

/// The file of the numbers.
pub const SPEED: &str = "speed.json";

static SCHEMA: Schema = Schema::new(
    "speed",
    "Load time, latency, throughput and peak memory of a language model, or of what encodes texts or pictures, on this machine.",
)
.children(&[
    Schema::new("of", "The model, adapter, quantized model, or `onnx` or `tflite` export.").arg("model", Type::Label).required(),
    Schema::new(
        "rounds",
        "Measured rounds, after a fifth as many to warm up; where it is not said, 30, and 5 of a language model.",
    )
    .arg("count", Type::Int(5, 10_000)),
    Schema::new("batch", "Encoders: texts and pictures in a batch; 16 where it is not said.")
        .arg("count", Type::Int(1, 1024)),
    Schema::new("prompt", "Language models: tokens of the prompt; 256 where it is not said.")
        .arg("tokens", Type::Int(1, 1 << 20)),
    Schema::new("generate", "Language models: tokens generated after it; 64 where it is not said.")
        .arg("tokens", Type::Int(1, 1 << 20)),
    BACKEND,
]);

#[derive(Deserialize)]
struct Fields {
    of: String,
    rounds: Option<usize>,
    batch: Option<usize>,
    prompt: Option<usize>,
    generate: Option<usize>,
}

/// Measured rounds where it is not said; of a language model, whose rounds are long.
const ROUNDS: usize = 30;
const ROUNDS_OF_LANGUAGE: usize = 5;
/// What a model is asked where it is not said, here and by `benchmark`.
pub(super) const BATCH: usize = 16;
pub(super) const PROMPT: usize = 256;
pub(super) const GENERATE: usize = 64;

impl Kind for Speed {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: models that only read or only see, many texts at once, and the rounds of encoders. 3: what a token of a
    /// language model has to read and to compute. 4: pictures' values become a tensor within the round.
    fn version(&self) -> u32 {
        4
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, repeatable: false, measures: true }
    }

    fn weighs(&self, _decl: &Decl) -> &'static [&'static str] {
        &["batch", "prompt"]
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Speed {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let begin = Instant::now();
        if let Some(exported) = exported(cx, &fields.of)? {
            let opened = Opened { load_ms: milliseconds(begin), bytes: weight_bytes(cx.input(&fields.of))? };
            let found = match exported.language() {
                Ok(config) => {
                    let most = config.max_position_embeddings;
                    let known = config.vocab_size;
                    let asked = Prompt::of(cx, &fields, most)?;
                    let round = |ids: &[u32], read: &mut Read| Ok(highest(&exported.go_on(ids, read)?));
                    language(cx, &asked, known, &opened, round)?
                }
                Err(_) => encoder(cx, &fields, &exported, &opened)?,
            };
            return save(cx, found, &exported.program());
        }
        let backend = cx.backend()?;
        on_backend!(backend, measure(cx, &fields, backend))
    }
}

/// How a model was opened.
struct Opened {
    load_ms: f64,
    /// Of its weights.
    bytes: u64,
}

fn measure<T: Tensor>(cx: &mut ActionCx<'_>, fields: &Fields, backend: Backend) -> Result<(), Failure> {
    let dir = cx.input(&fields.of).to_owned();
    let base = base_of(cx, &dir)?;
    let base = base.as_deref();
    let begin = Instant::now();
    let found = match Config::read(base.unwrap_or(&dir))? {
        Config::Llama(_) => {
            let model = Language::<T>::open(&dir, base, &fields.of)?.0;
            let load_ms = milliseconds(begin);
            let opened = Opened { load_ms, bytes: weight_bytes(&dir)? + base.map_or(Ok(0), weight_bytes)? };
            let asked = Prompt::of(cx, fields, model.config.max_position_embeddings)?;
            let round = |ids: &[u32], cache: &mut Cache<T>| most_likely(&model, ids, cache);
            let mut found = language(cx, &asked, model.config.vocab_size, &opened, round)?;
            // Of a prompt the logits of its last token alone are computed, and of an embedding that does not give them a row is read.
            let (weights, head) = (&model.model.weights, llama::head(&model.config));
            let (of_token, read_bytes) =
                weights.size(|name| !name.starts_with(llama::EMBEDDING) || head == llama::EMBEDDING);
            let (of_prompt, _) = weights.size(|name| !name.starts_with(llama::EMBEDDING) && !name.starts_with(head));
            found["read_bytes"] = read_bytes.into();
            found["weights_a_token"] = of_token.into();
            found["weights_a_prompt_token"] = of_prompt.into();
            found
        }
        _ => {
            let checkpoint = Checkpoint::open_as_codes(&dir, base)?;
            let model = Model::<T>::new(&checkpoint)?;
            let opened = Opened { bytes: checkpoint.weight_bytes, load_ms: milliseconds(begin) };
            drop(checkpoint);
            encoder(cx, fields, &model, &opened)?
        }
    };
    save(cx, found, backend.name())
}

/// Keeps what was found, by what computed it.
fn save(cx: &ActionCx<'_>, mut found: Value, by: &str) -> Result<(), Failure> {
    let common = [
        ("version", json!(2)),
        ("machine", json!(machine::identity())),
        ("backend", json!(by)),
        ("threads", json!(cx.threads)),
        ("peak_bytes", json!(machine::peak_bytes())),
    ];
    common.into_iter().for_each(|(name, value)| found[name] = value);
    let text = serde_json::to_string_pretty(&found).expect("plain data");
    Ok(fs::write(&cx.out().join(SPEED), text.as_bytes())?)
}

/// Refuses what was said for the other sort of models.
fn refuse(fields: &Fields, sort: &str, theirs: &str, given: &[(&str, bool)]) -> Result<(), Failure> {
    let Some((name, _)) = given.iter().find(|(_, given)| *given) else { return Ok(()) };
    Err(Failure::user(format!("`{name}` is of {theirs}, and {} is a {sort}", fields.of)).help("leave it out"))
}

/// What encodes texts, pictures or both: one at a time and many.
fn encoder(cx: &mut ActionCx<'_>, fields: &Fields, model: &dyn Encoder, opened: &Opened) -> Result<Value, Failure> {
    let given = [("prompt", fields.prompt.is_some()), ("generate", fields.generate.is_some())];
    refuse(fields, "model of texts or pictures", "language models", &given)?;
    let Opened { load_ms, bytes } = opened;
    let (rounds, many) = (fields.rounds.unwrap_or(ROUNDS), fields.batch.unwrap_or(BATCH));
    let works = 2 * (u64::from(model.preprocessing().is_some()) + u64::from(model.reads()));
    let mut told = 0;
    let mut timed = |what: &str, run: &dyn Fn() -> Result<(), Failure>| -> Result<Vec<f64>, Failure> {
        for _ in 0..rounds / 5 {
            run()?;
        }
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let begin = Instant::now();
            run()?;
            times.push(milliseconds(begin));
            told += 1;
            cx.progress(what, told, works * rounds as u64, "rounds");
        }
        Ok(times)
    };
    let mut found = json!({ "bytes": bytes, "load_ms": load_ms, "rounds": rounds, "batch": many });
    let mut tell = |what: &str, single: &[f64], batch: &[f64]| {
        found[format!("{what}_p50_ms")] = at(single, 0.5).into();
        found[format!("{what}_p95_ms")] = at(single, 0.95).into();
        found[format!("{what}s_per_s")] = (many as f64 * 1e3 / at(batch, 0.5)).into();
    };
    if let Some(preprocessing) = model.preprocessing() {
        let size = preprocessing.size;
        let pictures = |n: usize| -> Vec<f32> {
            let mut rng = Rng::new(1, "speed");
            (0..n * size * size * 3).map(|_| rng.between(-1.0, 1.0)).collect()
        };
        let (one, batch) = (pictures(1), pictures(many));
        let single = timed("one picture", &|| model.pictures(&one, 1).map(drop))?;
        tell("picture", &single, &timed("many pictures", &|| model.pictures(&batch, many).map(drop))?);
    }
    if model.reads() {
        let one = model.tokenizer()?.all(&["a red heart with an arrow"])?;
        let batch = vec![one[0].clone(); many];
        let single = timed("one text", &|| model.texts(&one).map(drop))?;
        tell("text", &single, &timed("many texts", &|| model.texts(&batch).map(drop))?);
    }
    Ok(found)
}

/// What a language model is asked.
struct Prompt {
    prompt: usize,
    generate: usize,
    rounds: usize,
}

impl Prompt {
    /// As far as the model reads, which is so many tokens.
    fn of(cx: &mut ActionCx<'_>, fields: &Fields, most: usize) -> Result<Self, Failure> {
        refuse(fields, "language model", "encoders", &[("batch", fields.batch.is_some())])?;
        let generate = fields.generate.unwrap_or(GENERATE).min(most / 2).max(1);
        let prompt = fields.prompt.unwrap_or(PROMPT).min(most - generate).max(1);
        if fields.prompt.is_some_and(|asked| prompt < asked) || fields.generate.is_some_and(|asked| generate < asked) {
            let said =
                format!("the model reads {most} tokens at most: measured are {prompt} of a prompt and {generate} more");
            cx.warning(said, None);
        }
        Ok(Self { prompt, generate, rounds: fields.rounds.unwrap_or(ROUNDS_OF_LANGUAGE) })
    }
}

/// As `effai run` asks it; `next` is given tokens and what was read before them, and says which is the most likely to follow.
/// The tokens of the prompt are drawn, so no text is needed, and the end of a text does not end what is generated.
fn language<C: std::default::Default>(
    cx: &mut ActionCx<'_>,
    &Prompt { prompt, generate, rounds }: &Prompt,
    known: usize,
    opened: &Opened,
    next: impl Fn(&[u32], &mut C) -> Result<u32, Failure>,
) -> Result<Value, Failure> {
    let mut rng = Rng::new(1, "speed");
    let ids: Vec<u32> = (0..prompt).map(|_| rng.below(known) as u32).collect();
    let (mut reading, mut writing) = (Vec::new(), Vec::new());
    for round in 0..rounds / 5 + rounds {
        let mut cache = C::default();
        let begin = Instant::now();
        let mut last = next(&ids, &mut cache)?;
        let read = milliseconds(begin);
        let begin = Instant::now();
        for _ in 0..generate {
            last = next(&[last], &mut cache)?;
        }
        if let Some(measured) = round.checked_sub(rounds / 5) {
            reading.push(read);
            writing.push(milliseconds(begin));
            cx.progress("generate", measured as u64 + 1, rounds as u64, "rounds");
        }
    }
    Ok(json!({
        "bytes": opened.bytes, "load_ms": opened.load_ms, "rounds": rounds,
        "prompt": prompt, "prompt_tokens_per_s": prompt as f64 * 1e3 / at(&reading, 0.5),
        "generate": generate, "generation_tokens_per_s": generate as f64 * 1e3 / at(&writing, 0.5),
    }))
}

/// The token that most likely follows these, which come after what the cache holds.
pub(super) fn most_likely<T: Tensor>(
    language: &Language<T>,
    ids: &[u32],
    cache: &mut Cache<T>,
) -> Result<u32, Failure> {
    let (weights, config) = (&language.model.weights, &language.config);
    let x = llama::encode(weights, config, &Texts::new(&[ids.to_vec()]), cache)?;
    let last = x.narrow(1, ids.len() - 1, 1)?.reshape(&[1, config.hidden_size])?;
    Ok(highest(&weights.linear(llama::head(config), &last)?.to_f32()?))
}

/// The place of the highest, of equal ones the first.
pub(super) fn highest(logits: &[f32]) -> u32 {
    (0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The time that this share of the rounds stayed under.
fn at(times: &[f64], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}
