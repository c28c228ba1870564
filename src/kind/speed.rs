//! `speed`: how quick one model is on this machine, in a process of its own.

use std::path::Path;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::features::base_of;
use super::{ActionCx, BACKEND, How, Kind, Needs, Pool, Run};
use crate::backend::rng::Rng;
use crate::backend::{Backend, Tensor, Texts, on_backend};
use crate::failure::Failure;
use crate::model::llama::{self, Cache};
use crate::model::{Checkpoint, Config, Model, weight_bytes};
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
    Schema::new("of", "The model, adapter or quantized model.").arg("model", Type::Label).required(),
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
    /// language model has to read and to compute.
    fn version(&self) -> u32 {
        3
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
        let backend = cx.backend()?;
        on_backend!(backend, measure(cx, backend))
    }
}

fn measure<T: Tensor>(cx: &mut ActionCx<'_>, backend: Backend) -> Result<(), Failure> {
    let fields: Fields = cx.decl.read();
    let dir = cx.input(&fields.of).to_owned();
    let base = base_of(cx, &dir)?;
    let mut found = match Config::read(base.as_deref().unwrap_or(&dir))? {
        Config::Llama(_) => language::<T>(cx, &fields, &dir, base.as_deref())?,
        _ => encoder::<T>(cx, &fields, &dir, base.as_deref())?,
    };
    let common = [
        ("version", json!(2)),
        ("machine", json!(machine::identity())),
        ("backend", json!(backend)),
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
fn encoder<T: Tensor>(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    dir: &Path,
    base: Option<&Path>,
) -> Result<Value, Failure> {
    let given = [("prompt", fields.prompt.is_some()), ("generate", fields.generate.is_some())];
    refuse(fields, "model of texts or pictures", "language models", &given)?;
    let begin = Instant::now();
    let checkpoint = Checkpoint::open_as_codes(dir, base)?;
    let model = Model::<T>::new(&checkpoint)?;
    let bytes = checkpoint.weight_bytes;
    drop(checkpoint);
    let load_ms = milliseconds(begin);
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
        let pictures = |n: usize| {
            let mut rng = Rng::new(1, "speed");
            let values: Vec<f32> = (0..n * size * size * 3).map(|_| rng.between(-1.0, 1.0)).collect();
            T::from_f32(&values, &[n, size, size, 3])
        };
        let run = |x: &T| force(&model.picture_batch(x)?);
        let (one, batch) = (pictures(1)?, pictures(many)?);
        tell("picture", &timed("one picture", &|| run(&one))?, &timed("many pictures", &|| run(&batch))?);
    }
    if model.reads() {
        let one = model.tokenize(&["a red heart with an arrow"])?;
        let batch = vec![one[0].clone(); many];
        let run = |ids: &[Vec<u32>]| force(&model.text_batch(&Texts::new(ids), None)?);
        tell("text", &timed("one text", &|| run(&one))?, &timed("many texts", &|| run(&batch))?);
    }
    Ok(found)
}

/// As `effai run` opens and asks it: quantized matrices stay so where they can. The tokens of the prompt are drawn, so no
/// text is needed, and the end of a text does not end what is generated.
fn language<T: Tensor>(
    cx: &mut ActionCx<'_>,
    fields: &Fields,
    dir: &Path,
    base: Option<&Path>,
) -> Result<Value, Failure> {
    refuse(fields, "language model", "encoders", &[("batch", fields.batch.is_some())])?;
    let begin = Instant::now();
    let model = Language::<T>::open(dir, base, &fields.of)?.0;
    let load_ms = milliseconds(begin);
    let most = model.config.max_position_embeddings;
    let generate = fields.generate.unwrap_or(GENERATE).min(most / 2).max(1);
    let prompt = fields.prompt.unwrap_or(PROMPT).min(most - generate).max(1);
    if fields.prompt.is_some_and(|asked| prompt < asked) || fields.generate.is_some_and(|asked| generate < asked) {
        let said =
            format!("the model reads {most} tokens at most: measured are {prompt} of a prompt and {generate} more");
        cx.warning(said, None);
    }
    // Of a prompt the logits of its last token alone are computed, and of an embedding that does not give them a row is read.
    let (weights, head) = (&model.model.weights, llama::head(&model.config));
    let (of_token, read_bytes) = weights.size(|name| !name.starts_with(llama::EMBEDDING) || head == llama::EMBEDDING);
    let (of_prompt, _) = weights.size(|name| !name.starts_with(llama::EMBEDDING) && !name.starts_with(head));
    let mut rng = Rng::new(1, "speed");
    let ids: Vec<u32> = (0..prompt).map(|_| rng.below(model.config.vocab_size) as u32).collect();
    let rounds = fields.rounds.unwrap_or(ROUNDS_OF_LANGUAGE);
    let (mut reading, mut writing) = (Vec::new(), Vec::new());
    for round in 0..rounds / 5 + rounds {
        let mut cache = Cache::default();
        let begin = Instant::now();
        let mut next = most_likely(&model, &ids, &mut cache)?;
        let read = milliseconds(begin);
        let begin = Instant::now();
        for _ in 0..generate {
            next = most_likely(&model, &[next], &mut cache)?;
        }
        if let Some(measured) = round.checked_sub(rounds / 5) {
            reading.push(read);
            writing.push(milliseconds(begin));
            cx.progress("generate", measured as u64 + 1, rounds as u64, "rounds");
        }
    }
    Ok(json!({
        "bytes": weight_bytes(dir)? + base.map_or(Ok(0), weight_bytes)?, "load_ms": load_ms, "rounds": rounds,
        "prompt": prompt, "prompt_tokens_per_s": prompt as f64 * 1e3 / at(&reading, 0.5),
        "generate": generate, "generation_tokens_per_s": generate as f64 * 1e3 / at(&writing, 0.5),
        "read_bytes": read_bytes, "weights_a_token": of_token, "weights_a_prompt_token": of_prompt,
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
    let logits = weights.linear(llama::head(config), &last)?.to_f32()?;
    Ok((0..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32)
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

/// Waits for a result: backends may compute when a value is asked for.
pub(super) fn force(tensor: &impl Tensor) -> Result<(), Failure> {
    tensor.to_f32()?;
    Ok(())
}
