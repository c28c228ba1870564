//! `training`: some steps of fine-tuning a language model, from where another training ended. An `adapter` stands on the
//! last of a chain of these, so each is kept by its key: more steps train only what is new, trainings that begin alike
//! share the beginning, and one that was killed goes on from the last that was done.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ActionCx, How, Kind, Needs, Part, Pool, Run};
use crate::backend::rng::Rng;
use crate::backend::{CandleTensor, Params, Tensor};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::format::tensors::{self, Array, Arrays};
use crate::model::chat::Chat;
use crate::model::{Checkpoint, Config, Model, llama};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::glob;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::train::language::{Order, token_losses};
use crate::train::method::{Method, begin, begin_whole, targets, whole};
use crate::train::optim::{AdamW, Schedule, check_loss, clip};
use crate::train::text::{self, Example, Examples, Reader};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Training;

/// What was learnt: `param.NAME`, the optimizer's moments `m.NAME` and `v.NAME`, and `best.NAME` where another is kept.
pub const STATE: &str = "state.safetensors";
/// How far it is: a [`Progress`].
pub const PROGRESS: &str = "progress.json";

static SCHEMA: Schema =
    Schema::new("training", "Some steps of fine-tuning a language model; an `adapter` stands on it.").children(&[
        Schema::new("base", "The model that is adapted.").arg("model", Type::Label).required(),
        Schema::new("method", "How.").arg("name", Type::Choice(METHODS)).required().flat().props(METHOD_PROPS),
        Schema::new("target-modules", TARGETS).many_args("globs", Type::Text),
        Schema::new("data", "The dataset.").arg("data", Type::Label).required(),
        Schema::new("hyper", "How to train.").children(&[
            Schema::new("batch", "Records a step.").arg("count", Type::Int(1, 65_536)).default(Default::Int(8)),
            Schema::new("micro-batch", "Records computed at once; the gradient is the batch's all the same.")
                .arg("count", Type::Int(1, 65_536)),
            Schema::new("max-length", "Tokens of a record at most.")
                .arg("tokens", Type::Int(2, 1 << 20))
                .default(Default::Int(512)),
            Schema::new("learning-rate", "Its peak.")
                .arg("rate", Type::FloatAbove(0.0, 1e30))
                .default(Default::Float(1e-4)),
            Schema::new("schedule", "How it goes after the warm-up.")
                .arg("name", Type::Choice(SCHEDULES))
                .default(Default::Text("constant")),
            Schema::new("total", "Steps over which it falls.").arg("steps", Type::Int(1, i64::MAX)),
            Schema::new("warmup", "Steps until the peak.")
                .arg("steps", Type::Int(0, 1_000_000))
                .default(Default::Int(10)),
            Schema::new("weight-decay", "Of matrices.")
                .arg("decay", Type::Float(0.0, 10.0))
                .default(Default::Float(0.0)),
            Schema::new("gradient-clip", "Largest norm of the gradient.")
                .arg("norm", Type::FloatAbove(0.0, f64::INFINITY))
                .default(Default::Float(1.0)),
            Schema::new("evaluate-every", "Steps between two losses on the split `validation`; 0 for never.")
                .arg("steps", Type::Int(0, i64::MAX))
                .default(Default::Int(50)),
            Schema::new("patience", "Evaluations without a better loss before it stops; 0 never.")
                .arg("count", Type::Int(0, 10_000))
                .default(Default::Int(0)),
            Schema::new("seed", "Of everything random.").arg("seed", Type::Int(0, i64::MAX)).default(Default::Int(0)),
        ]),
        Schema::new("until", "The step it ends at.").arg("step", Type::Int(1, i64::MAX)).required(),
        Schema::new("every", "Steps of one training of the chain.").arg("steps", Type::Int(1, i64::MAX)).required(),
    ]);

/// Ways to adapt.
pub const METHODS: &[&str] = &["lora", "rslora", "dora", "full"];
/// What target modules are.
pub const TARGETS: &str =
    "Names of the base's matrices, or globs over them; `full` trains all weights where it is not said.";
/// Ways the learning rate goes.
pub const SCHEDULES: &[&str] = &["constant", "linear", "cosine"];
/// What a method is told.
pub const METHOD_PROPS: &[Prop] = &[
    Prop::new("rank", Type::Int(1, 1024), "of the updates").default(Default::Int(8)),
    Prop::new("alpha", Type::FloatAbove(0.0, 1e6), "the updates count alpha / rank; in rslora, alpha / sqrt(rank)")
        .default(Default::Float(16.0)),
    Prop::new("dropout", Type::Float(0.0, 0.95), "on the updates' input").default(Default::Float(0.05)),
];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    base: String,
    method: Method,
    target_modules: Option<Vec<String>>,
    data: String,
    hyper: Hyper,
    until: u64,
    every: u64,
}

/// How to train.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Hyper {
    batch: usize,
    micro_batch: Option<usize>,
    max_length: usize,
    learning_rate: f64,
    schedule: Schedule,
    total: Option<u64>,
    warmup: u64,
    weight_decay: f64,
    gradient_clip: f64,
    evaluate_every: u64,
    patience: u64,
    seed: u64,
}

/// How far a training is.
#[derive(Clone, Debug, std::default::Default, Serialize, Deserialize)]
pub struct Progress {
    /// Of this file.
    pub version: u32,
    /// Steps done.
    pub step: u64,
    /// Tokens that counted in a loss.
    pub tokens: u64,
    /// It stopped before: no evaluation was better for long.
    pub stopped: bool,
    /// The best loss on the validation split, and the step it was had at.
    pub best: Option<(f64, u64)>,
    /// Loss, learning rate and norm of the gradient of each step.
    pub steps: Vec<(u64, f64, f64, f64)>,
    /// Loss on the validation split, by step.
    pub validation: Vec<(u64, f64)>,
}

/// Where the training before this one ended; none for the first.
fn before(fields: &Fields) -> Option<u64> {
    Some((fields.until - 1) / fields.every * fields.every).filter(|step| *step > 0)
}

/// The name of the training that ends at a step, as a part.
pub fn part_name(until: u64) -> String {
    format!("steps-{until}")
}

impl Kind for Training {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first.
    fn version(&self) -> u32 {
        1
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        check_method(decl, &fields.method, fields.target_modules.as_deref(), problems);
    }

    fn alongside(&self, decl: &Decl) -> Vec<String> {
        vec![decl.read::<Fields>().base]
    }

    fn parts(&self, decl: &Decl) -> Vec<Part> {
        let fields: Fields = decl.read();
        let Some(step) = before(&fields) else { return Vec::new() };
        let mut own = decl.fields.clone();
        own["until"] = step.into();
        vec![Part { name: part_name(step), kind: "training", fields: own }]
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Training {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        train::<CandleTensor>(cx, &fields)
    }
}

/// What a method is told and what it trains belong together.
pub fn check_method(decl: &Decl, method: &Method, globs: Option<&[String]>, problems: &mut Problems<'_>) {
    for (i, pattern) in globs.into_iter().flatten().enumerate() {
        if let Err(error) = glob::compile(pattern) {
            problems.at(&format!("target-modules.{i}"), error.to_string(), "this glob", "");
        }
    }
    if method.is_full() {
        for name in METHOD_PROPS.iter().map(|prop| prop.name) {
            let path = format!("method.{name}");
            if decl.spans.contains_key(&path) {
                let message = format!("`{name}` means nothing to the method `full`");
                problems.at(&path, message, "given here", "leave it out: the weights themselves are trained");
            }
        }
    } else if globs.is_none() {
        let message = format!("the method `{}` needs `target-modules`", method.name);
        problems.at("method", message, "this method", "add target-modules \"q_proj\" \"v_proj\"");
    }
}

/// A language model with its tokenizer and chat template.
pub struct Language<T: Tensor> {
    /// The model.
    pub model: Model<T>,
    /// Its shape.
    pub config: llama::Config,
    /// Its chat template, where it has one.
    pub chat: Option<Chat>,
}

impl<T: Tensor> Language<T> {
    /// Opens a directory; `label` is for the error where it is something else.
    pub fn open(dir: &std::path::Path, base: Option<&std::path::Path>, label: &str) -> Result<(Self, Arrays), Failure> {
        let checkpoint = Checkpoint::open(dir, base)?;
        let Config::Llama(config) = checkpoint.config.clone() else {
            return Err(Failure::user(format!("{label} is not a language model"))
                .help("name a model of architecture \"llama\""));
        };
        let model = Model::new(&checkpoint)?;
        let chat = Chat::open(base.unwrap_or(dir))?;
        Ok((Self { model, config, chat }, checkpoint.arrays))
    }

    /// The tokens of a text, as it is.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, Failure> {
        text::ids(self.model.tokenizer()?, text)
    }

    /// The records of a split as examples.
    pub fn examples(&self, data: &Dataset, split: &str, length_max: usize) -> Result<Examples, Failure> {
        let length_max = length_max.min(self.config.max_position_embeddings);
        let reader =
            Reader { tokenizer: self.model.tokenizer()?, chat: self.chat.as_ref(), config: &self.config, length_max };
        reader.examples(&data.rows(split)?, split)
    }

    /// The mean loss of each example's tokens that count, in nats, and how many those are.
    pub fn losses(&self, examples: &[Example], told: &mut dyn FnMut(usize)) -> Result<Vec<(f64, usize)>, Failure> {
        let mut order: Vec<usize> = (0..examples.len()).collect();
        order.sort_by_key(|i| (examples[*i].ids.len(), *i));
        let mut all = vec![(0.0, 0); examples.len()];
        let mut done = 0;
        for chunk in order.chunks(EVALUATED) {
            let batch: Vec<&Example> = chunk.iter().map(|i| &examples[*i]).collect();
            let losses = token_losses(&self.model.weights, &self.config, &batch)?.to_f32()?;
            let mut rest = losses.as_slice();
            for i in chunk {
                let (own, after) = rest.split_at(examples[*i].targets());
                all[*i] = (own.iter().map(|l| f64::from(*l)).sum::<f64>() / own.len() as f64, own.len());
                rest = after;
            }
            done += chunk.len();
            told(done);
        }
        Ok(all)
    }
}

/// Examples whose losses are computed at once.
const EVALUATED: usize = 8;

/// The mean over all tokens.
pub fn mean_loss(losses: &[(f64, usize)]) -> f64 {
    let tokens: usize = losses.iter().map(|(_, n)| n).sum();
    losses.iter().map(|(loss, n)| loss * *n as f64).sum::<f64>() / tokens.max(1) as f64
}

/// What a training carries from step to step.
struct State<T: Tensor> {
    params: Params<T>,
    adam: AdamW,
    best: Option<Params<T>>,
    progress: Progress,
}

fn train<T: Tensor>(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<(), Failure> {
    let hyper = &fields.hyper;
    let (mut language, arrays) = Language::<T>::open(cx.input(&fields.base), None, &fields.base)?;
    let mut state = begun(cx, fields, &language.config, &arrays)?;
    drop(arrays);
    let data = Dataset::open(cx.input(&fields.data))?;
    let learn = language.examples(&data, "train", hyper.max_length)?;
    if learn.cut > 0 {
        let help = format!("raise `max-length` from {}, or leave it so", hyper.max_length);
        cx.warning(
            format!("{} records are longer than `max-length`: their ends are not learnt", learn.cut),
            Some(help),
        );
    }
    let held = match data.splits().iter().any(|split| split == "validation") {
        true if hyper.evaluate_every > 0 => language.examples(&data, "validation", hyper.max_length)?.examples,
        _ => Vec::new(),
    };
    let learn = learn.examples;
    let mut order = Order::new(learn.iter().map(|e| e.ids.len()).collect(), hyper.batch, hyper.seed);
    let scale = fields.method.scale();
    while state.progress.step < fields.until && !state.progress.stopped {
        let step = state.progress.step;
        let begun = Instant::now();
        let batch: Vec<&Example> = order.at(step).into_iter().map(|i| &learn[i]).collect();
        let count: usize = batch.iter().map(|e| e.targets()).sum();
        let (mut loss, mut grads) = (0.0, Params::new());
        for (part, micro) in batch.chunks(hyper.micro_batch.unwrap_or(hyper.batch)).enumerate() {
            let noise = Rng::new(hyper.seed, &format!("dropout {step} {part}"));
            let mut noise = Some((fields.method.dropout as f32, RefCell::new(noise)));
            let (weights, config) = (&mut language.model.weights, &language.config);
            let (own, more) = T::value_and_grad(&state.params, &mut |p| {
                weights.put(p, scale, noise.take());
                // Each token counts alike, however the batch is cut.
                token_losses(weights, config, micro)?.sum_all()?.affine(1.0 / count as f64, 0.0)
            })?;
            loss += own;
            if grads.is_empty() {
                grads = more;
            } else {
                for (name, grad) in more {
                    let sum = grads[&name].add(&grad)?;
                    grads.insert(name, sum);
                }
            }
        }
        let total = hyper.total.unwrap_or(fields.until);
        let rate = hyper.schedule.rate(hyper.learning_rate, step, hyper.warmup, total);
        let norm = clip(&mut grads, hyper.gradient_clip)?;
        check_loss(loss, step, rate, norm)?;
        state.adam.step(&mut state.params, &grads, rate)?;
        // The step's own copies are let go of.
        language.model.weights.put(&state.params, scale, None);
        let progress = &mut state.progress;
        progress.step += 1;
        progress.tokens += count as u64;
        progress.steps.push((progress.step, f64::from(loss), rate, norm));
        cx.metric_at("train.loss", progress.step, f64::from(loss));
        cx.metric_at("train.rate", progress.step, rate);
        cx.metric_at("train.norm", progress.step, norm);
        let read: usize = batch.iter().map(|e| e.ids.len()).sum();
        cx.metric_at("train.tokens-per-s", progress.step, read as f64 / begun.elapsed().as_secs_f64());
        let step = progress.step;
        cx.progress(&format!("loss {loss:.3}"), step, fields.until, "steps");
        if !held.is_empty() && step.is_multiple_of(hyper.evaluate_every) {
            let found = language.losses(&held, &mut |_| {})?;
            evaluated(cx, &mut state, mean_loss(&found), hyper);
        }
    }
    write(cx, &state)
}

/// Takes down a loss on the validation split.
fn evaluated<T: Tensor>(cx: &mut ActionCx<'_>, state: &mut State<T>, loss: f64, hyper: &Hyper) {
    let progress = &mut state.progress;
    progress.validation.push((progress.step, loss));
    cx.metric_at("validation.loss", progress.step, loss);
    if progress.best.is_none_or(|(best, _)| loss < best) {
        progress.best = Some((loss, progress.step));
        state.best = Some(state.params.clone());
    }
    let since = progress.best.map_or(0, |(_, step)| (progress.step - step) / hyper.evaluate_every.max(1));
    progress.stopped = hyper.patience > 0 && since >= hyper.patience;
}

/// The state that the training before this one left, or a new one.
fn begun<T: Tensor>(
    cx: &ActionCx<'_>,
    fields: &Fields,
    config: &llama::Config,
    arrays: &Arrays,
) -> Result<State<T>, Failure> {
    let mut adam = AdamW::new(0.9, 0.999, fields.hyper.weight_decay);
    let Some(step) = before(fields) else {
        let globs = fields.target_modules.as_deref();
        let params = match fields.method.is_full() {
            true => begin_whole(&whole(arrays, config, globs)?, arrays)?,
            false => begin(&targets(arrays, globs.unwrap_or_default())?, arrays, &fields.method, fields.hyper.seed)?,
        };
        let progress = Progress { version: 1, ..Progress::default() };
        return Ok(State { params, adam, best: None, progress });
    };
    let (progress, arrays) = read(cx.part(&part_name(step)))?;
    adam.load(&arrays, progress.step);
    let named = |prefix: &str| -> Result<Params<T>, Failure> {
        let own = arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array)));
        own.map(|(name, array)| Ok((name.to_owned(), T::from_f32(array.floats(), &array.shape)?))).collect()
    };
    let best = named("best.")?;
    Ok(State { params: named("param.")?, adam, best: (!best.is_empty()).then_some(best), progress })
}

/// What a training left.
pub fn read(dir: &std::path::Path) -> Result<(Progress, Arrays), Failure> {
    let path = dir.join(PROGRESS);
    let progress = serde_json::from_str(&fs::read_text(&path)?)
        .map_err(|e| Failure::target(format!("{} is not as it was written: {e}", path.display())))?;
    Ok((progress, tensors::read(&dir.join(STATE))?))
}

fn write<T: Tensor>(cx: &mut ActionCx<'_>, state: &State<T>) -> Result<(), Failure> {
    let mut arrays = Arrays::new();
    for (prefix, params) in [("param.", Some(&state.params)), ("best.", state.best.as_ref())] {
        for (name, tensor) in params.into_iter().flatten() {
            arrays.insert(format!("{prefix}{name}"), Array::f32(&tensor.shape(), tensor.to_f32()?));
        }
    }
    state.adam.save(&mut arrays);
    tensors::write(&cx.out().join(STATE), &arrays, &[])?;
    let text = serde_json::to_string(&state.progress).expect("plain data");
    Ok(fs::write(&cx.out().join(PROGRESS), text.as_bytes())?)
}

/// The fields of the last training of a chain, for an adapter's part.
pub fn fields(decl: &Decl, base: &str, data: &str, steps: u64, every: u64, hyper: BTreeMap<&str, Value>) -> Value {
    json!({
        "base": base, "method": decl.fields["method"], "target-modules": decl.fields["target-modules"],
        "data": data, "hyper": hyper, "until": steps, "every": every,
    })
}
