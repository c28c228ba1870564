//! `training`: some steps of fine-tuning a language model, from where another training ended. An `adapter` stands on the
//! last of a chain of these, so each is kept by its key: more steps train only what is new, trainings that begin alike
//! share the beginning, and one that was killed goes on from the last that was done.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ActionCx, BACKEND, How, Kind, Needs, Part, Pool, Run};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::rng::Rng;
use crate::backend::{Backend, Params, Precision, Tensor, on_backend};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::format::tensors;
use crate::model::Checkpoint;
use crate::model::llama;
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::glob;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::report::language::mean_loss;
use crate::train::divergence::{OnDivergence, Retry, STILL, Watch, stands_still};
use crate::train::language::{Language, Order, config_of};
use crate::train::method::{Method, begin, begin_whole, targets, whole};
use crate::train::optim::{AdamW, CALMER, Optimizer, Schedule, Sgd, check_loss, clip};
use crate::train::step::Step;
use crate::train::text::Example;
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
            Schema::new("pack", "Records lie one after the other instead of being padded; none sees another.")
                .arg("yes", Type::Bool),
            Schema::new("gradient-checkpointing", CHECKPOINTING).arg("yes", Type::Bool).no_fact(),
            Schema::new("precision", PRECISION).arg("name", Type::Choice(Precision::NAMES)),
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
            Schema::new("optimizer", "What makes steps of gradients; `adamw` where it is not said.")
                .arg("name", Type::Choice(OPTIMIZERS))
                .props(OPTIMIZER_PROPS),
            Schema::new(
                "on-divergence",
                "It goes on from the last state kept, with a smaller rate, where the loss is lost.",
            )
            .props(ON_DIVERGENCE_PROPS),
            Schema::new("seed", "Of everything random.").arg("seed", Type::Int(0, i64::MAX)).default(Default::Int(0)),
        ]),
        Schema::new("until", "The step it ends at.").arg("step", Type::Int(1, i64::MAX)).required(),
        Schema::new("every", "Steps of one training of the chain.").arg("steps", Type::Int(1, i64::MAX)).required(),
        BACKEND,
    ]);

/// Ways to adapt.
pub const METHODS: &[&str] = &["lora", "rslora", "dora", "full"];
/// What target modules are.
pub const TARGETS: &str =
    "Names of the base's matrices, or globs over them; `full` trains all weights where it is not said.";
/// What gradient checkpointing is.
pub const CHECKPOINTING: &str =
    "Layers are computed again for their gradients instead of being kept: less memory, more time, the same bytes.";
/// What a precision is.
pub const PRECISION: &str = "Of frozen weights and of what is computed between; trained weights, the optimizer and the loss are `f32`. `bf16` needs MLX; `f32` where it is not said.";
/// Ways the learning rate goes.
pub const SCHEDULES: &[&str] = &["constant", "linear", "cosine"];
/// What makes steps of gradients.
pub const OPTIMIZERS: &[&str] = &["adamw", "sgd"];
/// What an optimizer is told.
pub const OPTIMIZER_PROPS: &[Prop] =
    &[Prop::new("momentum", Type::Float(0.0, 0.9999), "sgd: of the steps before; 0.9 where it is not said")];
/// What is done where a training diverges.
pub const ON_DIVERGENCE_PROPS: &[Prop] = &[
    Prop::new("retries", Type::Int(1, 100), "how often, in all").default(Default::Int(2)),
    Prop::new("factor", Type::FloatAbove(0.0, 0.99), "what learning rates are multiplied by each time")
        .default(Default::Float(0.5)),
    Prop::new("above", Type::FloatAbove(1.0, 1e6), "times the least mean of ten losses that are too much")
        .default(Default::Float(3.0)),
];
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
    pack: Option<bool>,
    gradient_checkpointing: Option<bool>,
    precision: Option<Precision>,
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
    optimizer: Option<OptimizerFields>,
    on_divergence: Option<OnDivergence>,
}

impl Hyper {
    fn optimizer(&self) -> Optimizer {
        match &self.optimizer {
            Some(own) if own.name == "sgd" => Optimizer::Sgd(Sgd::new(own.momentum.unwrap_or(0.9), self.weight_decay)),
            _ => Optimizer::AdamW(AdamW::new(0.9, 0.999, self.weight_decay)),
        }
    }
}

/// What makes steps of gradients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OptimizerFields {
    name: String,
    momentum: Option<f64>,
}

impl OptimizerFields {
    /// Refuses a momentum where it means nothing; `path` is the optimizer's.
    pub fn check(&self, path: &str, problems: &mut Problems<'_>) {
        if self.name != "sgd" && self.momentum.is_some() {
            let message = format!("`momentum` means nothing to the optimizer `{}`", self.name);
            problems.at(&format!("{path}.momentum"), message, "given here", "leave it out, or name \"sgd\"");
        }
    }
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
    /// How often it went on from a kept state, because it diverged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<Retry>,
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
        if let Some(optimizer) = &fields.hyper.optimizer {
            optimizer.check("hyper.optimizer", problems);
        }
        check_precision(decl, "hyper.precision", fields.hyper.precision, problems);
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

    fn weighs(&self, _decl: &Decl) -> &'static [&'static str] {
        &["micro-batch", "max-length"]
    }

    fn is_main(&self, metric: &str) -> bool {
        ["train.loss", "validation.loss"].contains(&metric)
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Training {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        on_backend!(cx.backend_in(fields.hyper.precision.unwrap_or_default())?, train(cx, &fields))
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

/// Refuses a precision that the backend which the recipe insists on does not have; `path` is the precision's.
pub fn check_precision(decl: &Decl, path: &str, precision: Option<Precision>, problems: &mut Problems<'_>) {
    let (named, precision) = (decl.fields["backend"].as_str(), precision.unwrap_or_default());
    if let Some(backend) = named.and_then(Backend::by_name).filter(|backend| !backend.has(precision)) {
        let message = format!("`precision \"{}\"` needs MLX, and `backend` names {}", precision.name(), backend.name());
        problems.at(path, message, "given here", "write backend \"mlx\", or leave `precision` out");
    }
}

/// What a training carries from step to step.
#[derive(Clone)]
struct State<T: Tensor> {
    params: Params<T>,
    optimizer: Optimizer,
    best: Option<Params<T>>,
    progress: Progress,
}

fn train<T: Tensor>(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<(), Failure> {
    let hyper = &fields.hyper;
    let base = cx.input(&fields.base);
    let mut checkpoint = Checkpoint::open_as_codes(base, None)?;
    let mut state = begun(cx, fields, &config_of(&checkpoint, &fields.base)?, &checkpoint.arrays)?;
    let mut language = Language::<T>::take(&mut checkpoint, base, &fields.base, hyper.precision.unwrap_or_default())?;
    let data = Dataset::open(cx.input(&fields.data))?;
    let learn = language.examples(&data, "train", hyper.max_length)?;
    if let Some((text, help)) = learn.warning(hyper.max_length) {
        cx.warning(text, Some(help));
    }
    let held = match data.splits().iter().any(|split| split == "validation") {
        true if hyper.evaluate_every > 0 => language.examples(&data, "validation", hyper.max_length)?.examples,
        _ => Vec::new(),
    };
    let learn = learn.examples;
    let mut order = Order::new(learn.iter().map(|e| e.ids.len()).collect(), hyper.batch, hyper.seed);
    let scale = fields.method.scale();
    // What is gone back to; only where it may be.
    let kept = hyper.on_divergence.is_some().then(|| state.clone());
    let rule = hyper.on_divergence.unwrap_or_default();
    let begin_watch = |progress: &Progress| Watch::new(rule.above, progress.steps.iter().map(|(_, loss, ..)| *loss));
    let mut watch = begin_watch(&state.progress);
    let mut told = false;
    while state.progress.step < fields.until && !state.progress.stopped {
        let step = state.progress.step;
        let begun = Instant::now();
        let batch: Vec<&Example> = order.at(step).into_iter().map(|i| &learn[i]).collect();
        let count: usize = batch.iter().map(|e| e.targets()).sum();
        let (mut loss, mut grads) = (0.0, Params::new());
        for (part, micro) in batch.chunks(hyper.micro_batch.unwrap_or(hyper.batch)).enumerate() {
            let pass = Step {
                scale,
                dropout: fields.method.dropout as f32,
                noise: Rng::new(hyper.seed, &format!("dropout {step} {part}")),
                packed: hyper.pack.unwrap_or(false),
                count,
                checkpointed: hyper.gradient_checkpointing.unwrap_or(false),
            };
            let (own, more) =
                pass.value_and_grad(&mut language.model.weights, &language.config, &state.params, micro)?;
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
        let calmed = state.progress.retries.iter().map(|retry| retry.factor).next_back().unwrap_or(1.0);
        let rate = hyper.schedule.rate(hyper.learning_rate * calmed, step, hyper.warmup, total);
        let norm = clip(&mut grads, hyper.gradient_clip)?;
        if watch.diverges(f64::from(loss)) || !norm.is_finite() {
            match &kept {
                Some(kept) => {
                    state = again(cx, kept, &state.progress, &rule, (step, loss, norm), rate)?;
                    watch = begin_watch(&state.progress);
                    continue;
                }
                None => check_loss(loss, step, rate, norm)?,
            }
            if !told {
                cx.warning(
                    lost((step, loss, norm), &rule),
                    Some(format!("{CALMER}; `on-divergence` goes back by itself")),
                );
            }
            told = true;
        }
        state.optimizer.step(&mut state.params, &grads, rate)?;
        // The step's own copies are let go of.
        language.model.weights.put(&state.params, scale, None);
        let progress = &mut state.progress;
        progress.step += 1;
        progress.tokens += count as u64;
        progress.steps.push((progress.step, f64::from(loss), rate, norm));
        cx.metric_at("train.loss", progress.step, f64::from(loss));
        cx.metric_at("train.rate", progress.step, rate);
        cx.metric_at("train.norm", progress.step, norm);
        if progress.steps.len().is_multiple_of(STILL) {
            let losses: Vec<f64> = progress.steps.iter().map(|(_, loss, ..)| *loss).collect();
            still(cx, &losses);
        }
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

/// Says so where a training stands still.
fn still(cx: &mut ActionCx<'_>, losses: &[f64]) {
    if let Some((last, before)) = stands_still(losses) {
        let means = format!("{last:.4} over the last {STILL} steps, {before:.4} over as many before");
        let help = "try a higher `learning-rate`, or fewer steps";
        cx.warning(format!("the loss stands still: {means}"), Some(help.into()));
    }
}

/// The kept state, to go on from with a smaller rate, unless that was tried often enough.
fn again<T: Tensor>(
    cx: &mut ActionCx<'_>,
    kept: &State<T>,
    now: &Progress,
    rule: &OnDivergence,
    at: (u64, f32, f64),
    rate: f64,
) -> Result<State<T>, Failure> {
    let (mut state, (step, loss, _)) = (kept.clone(), at);
    let tried = now.retries.len();
    if tried >= rule.retries {
        let tries = if tried == 1 { "a retry".to_owned() } else { format!("{tried} retries") };
        let message = format!("{}, also after {tries} (learning rate {rate:.3e})", lost(at, rule));
        return Err(Failure::target(message).help(CALMER));
    }
    let from = state.progress.step;
    let factor = rule.factor.powi(tried as i32 + 1);
    let given = Some(f64::from(loss)).filter(|loss| loss.is_finite());
    state.progress.retries.clone_from(&now.retries);
    state.progress.retries.push(Retry { step, loss: given, from, factor });
    cx.metric_at("train.retry", step, factor);
    let text = format!("{}: again from step {from}, with {factor} of the learning rate", lost(at, rule));
    cx.warning(text, None);
    Ok(state)
}

fn lost((step, loss, norm): (u64, f32, f64), rule: &OnDivergence) -> String {
    if loss.is_finite() && norm.is_finite() {
        format!("the training diverges at step {step}: the last losses are over {} times the least", rule.above)
    } else {
        format!("the training diverges at step {step}: its loss is {loss}, its gradient's norm {norm:.3e}")
    }
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
    let mut optimizer = fields.hyper.optimizer();
    let Some(step) = before(fields) else {
        let globs = fields.target_modules.as_deref();
        let params = match fields.method.is_full() {
            true => begin_whole(&whole(arrays, &|module| config.computes_with(module), globs)?, arrays)?,
            false => begin(&targets(arrays, globs.unwrap_or_default())?, arrays, &fields.method, fields.hyper.seed)?,
        };
        let progress = Progress { version: 1, ..Progress::default() };
        return Ok(State { params, optimizer, best: None, progress });
    };
    let (progress, arrays) = read(cx.part(&part_name(step)))?;
    optimizer.load(&arrays, progress.step);
    let named = |prefix: &str| -> Result<Params<T>, Failure> {
        let own = arrays.iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?, array)));
        own.map(|(name, array)| Ok((name.to_owned(), T::from_f32(array.floats(), &array.shape)?))).collect()
    };
    let best = named("best.")?;
    Ok(State { params: named("param.")?, optimizer, best: (!best.is_empty()).then_some(best), progress })
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
    state.optimizer.save(&mut arrays);
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
