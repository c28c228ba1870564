//! `adapter`: low-rank updates (LoRA, Hu et al., 2021; DoRA, Liu et al., 2024) of a picture-text model's towers, or of
//! a language model; or either trained whole.
//!
//! A picture-text model is trained in `contrast`. Of a language model the steps are done by [`training`], and this only writes what they ended with.

mod contrast;
mod import;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::model::{Train, write_model};
use super::{ActionCx, BACKEND, How, Kind, Needs, Part, Pool, Run, training};
use crate::backend::arrays::Arrays;
use crate::backend::{Precision, on_backend};
use crate::failure::Failure;
use crate::model::{Checkpoint, Config, copy_companions};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::train::divergence::OnDivergence;
use crate::train::method::Method;
use crate::train::{mlx_lm, peft};
use crate::util::fs;
use contrast::contrast;

/// The kind.
#[derive(Debug)]
pub struct Adapter;

static SCHEMA: Schema = Schema::new("adapter", "Low-rank updates of a model, in PEFT's layout and in mlx-lm's.")
    .children(&[
        Schema::new("base", "The model that is adapted.").arg("model", Type::NamedLabel).required(),
        import::SOURCE,
        Schema::new("method", "How.").arg("name", Type::Choice(training::METHODS)).flat().props(training::METHOD_PROPS),
        Schema::new("target-modules", training::TARGETS).many_args("globs", Type::Text),
        Schema::new("heads", "Picture-text: whether the projection heads go on training, and their dropout.").props(&[
            Prop::new("train", Type::Bool, "they do").default(Default::Bool(true)),
            Prop::new(
                "dropout",
                Type::Float(0.0, 0.95),
                "share of their inputs dropped; where it is not said 0.5, of a CLIP model 0",
            ),
        ]),
        Schema::new("train", "The data and how.").arg("data", Type::Label).children(TRAIN_FIELDS),
        BACKEND,
    ]);

const TRAIN_FIELDS: &[Schema] = &[
    Schema::new("loss", "`info-nce` of a picture-text model, `next-token` of a language model.")
        .arg("name", Type::Choice(&["info-nce", "next-token"]))
        .default(Default::Text("info-nce")),
    Schema::new("epochs", "info-nce: passes over the concepts; 60 where it is not said.")
        .arg("count", Type::Int(1, 10_000)),
    Schema::new("steps", "next-token: steps.").arg("count", Type::Int(1, 100_000_000)),
    Schema::new("batch", "Concepts or records a step.").arg("count", Type::Int(1, 65_536)).default(Default::Int(8)),
    Schema::new("micro-batch", "next-token: records computed at once; the gradient is the batch's all the same.")
        .arg("count", Type::Int(1, 65_536)),
    Schema::new("pack", "next-token: records lie one after the other instead of being padded; none sees another.")
        .arg("yes", Type::Bool),
    Schema::new(
        "gradient-checkpointing",
        "next-token: layers are computed again for their gradients instead of being kept: less memory, more time, the same bytes.",
    )
    .arg("yes", Type::Bool)
    .no_fact(),
    Schema::new(
        "precision",
        "next-token: of frozen weights and of what is computed between; trained weights, the optimizer and the loss are `f32`. `bf16` needs MLX; `f32` where it is not said.",
    )
    .arg("name", Type::Choice(Precision::NAMES)),
    Schema::new("max-length", "next-token: tokens of a record at most; 512 where it is not said.")
        .arg("tokens", Type::Int(2, 1 << 20)),
    Schema::new("learning-rate", "Its peak.").arg("rate", Type::FloatAbove(0.0, 1e30)).default(Default::Float(1e-4)),
    Schema::new(
        "schedule",
        "next-token: how the rate goes after the warm-up; `constant` where it is not said. info-nce: half a cosine.",
    )
    .arg("name", Type::Choice(training::SCHEDULES)),
    Schema::new("warmup", "Steps until the peak.").arg("steps", Type::Int(0, 1_000_000)).default(Default::Int(10)),
    Schema::new("optimizer", "next-token: what makes steps of gradients; `adamw` where it is not said.")
        .arg("name", Type::Choice(training::OPTIMIZERS))
        .props(training::OPTIMIZER_PROPS),
    Schema::new("weight-decay", "Of matrices.").arg("decay", Type::Float(0.0, 10.0)).default(Default::Float(0.01)),
    Schema::new("gradient-clip", "Largest norm of the gradient.")
        .arg("norm", Type::FloatAbove(0.0, f64::INFINITY))
        .default(Default::Float(1.0)),
    Schema::new(
        "evaluate-every",
        "next-token: steps between two losses on the split `validation`; 50 where it is not said.",
    )
    .arg("steps", Type::Int(0, i64::MAX)),
    Schema::new("checkpoint-every", "next-token: steps that are kept together; 250 where it is not said.")
        .arg("steps", Type::Int(1, i64::MAX)),
    Schema::new(
        "on-divergence",
        "next-token: it goes on from the last state kept, with a smaller rate, where the loss is lost.",
    )
    .props(training::ON_DIVERGENCE_PROPS),
    Schema::new("patience", "Epochs or evaluations without a better validation loss before it stops; 0 never.")
        .arg("count", Type::Int(0, 10_000))
        .default(Default::Int(0)),
    Schema::new(
        "views",
        "info-nce: views of each picture, 1 plain, 2 also flipped, more changed at random; 6 where it is not said.",
    )
    .arg("count", Type::Int(1, 64)),
    Schema::new("seed", "Of everything random.").arg("seed", Type::Int(0, i64::MAX)).default(Default::Int(0)),
];

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    base: String,
    method: Method,
    target_modules: Option<Vec<String>>,
    heads: Option<Heads>,
    train: TrainFields,
}

/// The declared training: fields of one loss are none under the other.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct TrainFields {
    data: String,
    loss: String,
    epochs: Option<u64>,
    steps: Option<u64>,
    batch: usize,
    micro_batch: Option<usize>,
    pack: Option<bool>,
    gradient_checkpointing: Option<bool>,
    precision: Option<Precision>,
    max_length: Option<usize>,
    learning_rate: f64,
    schedule: Option<String>,
    optimizer: Option<training::OptimizerFields>,
    on_divergence: Option<OnDivergence>,
    warmup: u64,
    weight_decay: f64,
    gradient_clip: f64,
    evaluate_every: Option<u64>,
    checkpoint_every: Option<u64>,
    patience: u64,
    views: Option<usize>,
    seed: u64,
}

impl TrainFields {
    fn is_language(&self) -> bool {
        self.loss == "next-token"
    }

    /// As a contrastive training.
    fn contrastive(&self) -> Train {
        Train {
            data: self.data.clone(),
            epochs: self.epochs.unwrap_or(60),
            batch: self.batch,
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            weight_decay: self.weight_decay,
            gradient_clip: self.gradient_clip,
            patience: self.patience,
            views: self.views.unwrap_or(6),
            seed: self.seed,
        }
    }

    /// The precision, where it is not 32 bits.
    fn lower(&self) -> Option<Precision> {
        self.precision.filter(|precision| *precision != Precision::F32)
    }

    fn steps(&self) -> u64 {
        self.steps.unwrap_or(1)
    }

    /// The training that an adapter of a language model stands on.
    fn part(&self, decl: &Decl, base: &str) -> Part {
        let schedule = self.schedule.as_deref().unwrap_or("constant");
        let mut hyper = BTreeMap::from([
            ("batch", json!(self.batch)),
            ("max-length", json!(self.max_length.unwrap_or(512))),
            ("learning-rate", json!(self.learning_rate)),
            ("schedule", json!(schedule)),
            ("warmup", json!(self.warmup)),
            ("weight-decay", json!(self.weight_decay)),
            ("gradient-clip", json!(self.gradient_clip)),
            ("evaluate-every", json!(self.evaluate_every.unwrap_or(50))),
            ("patience", json!(self.patience)),
            ("seed", json!(self.seed)),
        ]);
        hyper.extend(self.micro_batch.map(|count| ("micro-batch", json!(count))));
        hyper.extend(self.pack.filter(|pack| *pack).map(|pack| ("pack", json!(pack))));
        hyper.extend(self.gradient_checkpointing.map(|yes| ("gradient-checkpointing", json!(yes))));
        hyper.extend(self.lower().map(|precision| ("precision", json!(precision))));
        hyper.extend(self.optimizer.as_ref().map(|own| ("optimizer", json!(own))));
        hyper.extend(self.on_divergence.map(|rule| ("on-divergence", json!(rule))));
        // A schedule that does not depend on the end: a longer training begins with the shorter one.
        if schedule != "constant" {
            hyper.insert("total", json!(self.steps()));
        }
        let every = self.checkpoint_every.unwrap_or(250);
        let fields = training::fields(decl, base, &self.data, self.steps(), every, hyper);
        Part { name: training::part_name(self.steps()), kind: "training", fields }
    }
}

#[derive(Clone, Copy, Deserialize)]
struct Heads {
    train: bool,
    dropout: Option<f32>,
}

impl Kind for Adapter {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: matrix products by our own kernels, whose last bits differ. 3: texts of two tags at most, pooled
    /// blocks, AdamW's steps in 32 bits. 4: attention in one kernel; `use_rslora` is written. 5: for mlx-lm, layers that
    /// are not the last by whole names.
    fn version(&self) -> u32 {
        5
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        if import::check(decl, problems) {
            return;
        }
        let fields: Fields = decl.read();
        training::check_method(decl, &fields.method, fields.target_modules.as_deref(), problems);
        let train = &fields.train;
        let (pictures, language) = (
            [("epochs", train.epochs.is_some()), ("views", train.views.is_some())],
            [
                ("steps", train.steps.is_some()),
                ("micro-batch", train.micro_batch.is_some()),
                ("pack", train.pack.is_some()),
                ("gradient-checkpointing", train.gradient_checkpointing.is_some()),
                ("precision", train.precision.is_some()),
                ("max-length", train.max_length.is_some()),
                ("schedule", train.schedule.is_some()),
                ("optimizer", train.optimizer.is_some()),
                ("on-divergence", train.on_divergence.is_some()),
                ("evaluate-every", train.evaluate_every.is_some()),
                ("checkpoint-every", train.checkpoint_every.is_some()),
            ],
        );
        let others: &[(&str, bool)] = if train.is_language() { &pictures } else { &language };
        for (name, _) in others.iter().filter(|(_, given)| *given) {
            let message = format!("`{name}` means nothing to the loss `{}`", train.loss);
            problems.at(&format!("train.{name}"), message, "given here", "leave it out, or name the other `loss`");
        }
        if let Some(optimizer) = &train.optimizer {
            optimizer.check("train.optimizer", problems);
        }
        training::check_precision(decl, "train.precision", train.precision, problems);
        if train.is_language() && train.steps.is_none() {
            problems.at(
                "train",
                "a training with the loss `next-token` needs `steps`",
                "trained here",
                "add steps 1000",
            );
        }
        if !train.is_language() && train.batch < 2 {
            problems.at("train.batch", "a concept alone has nothing to be told from", "this batch", "write 2 or more");
        }
        if train.is_language() && fields.heads.is_some() {
            problems.at("heads", "a language model has no projection heads", "these", "leave them out");
        }
    }

    fn parts(&self, decl: &Decl) -> Vec<Part> {
        if import::is_import(decl) {
            return vec![import::part(decl)];
        }
        let fields: Fields = decl.read();
        if fields.train.is_language() { vec![fields.train.part(decl, &fields.base)] } else { Vec::new() }
    }

    fn alongside(&self, decl: &Decl) -> Vec<String> {
        // A model that was trained whole stands alone.
        if decl.fields["method"]["name"] == "full" {
            return Vec::new();
        }
        decl.fields["base"].as_str().map(str::to_owned).into_iter().collect()
    }

    fn needs(&self, decl: &Decl) -> Needs {
        let computes = !import::is_import(decl) && !decl.read::<Fields>().train.is_language();
        Needs { pool: if computes { Pool::Machine } else { Pool::Cpu }, ..Needs::default() }
    }

    fn weighs(&self, decl: &Decl) -> &'static [&'static str] {
        if self.needs(decl).pool == Pool::Machine { &["batch"] } else { &[] }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Adapter {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        if import::is_import(cx.decl) {
            return import::run(cx);
        }
        let fields: Fields = cx.decl.read();
        if fields.train.is_language() {
            return conclude(cx, &fields);
        }
        on_backend!(cx.backend()?, contrast(cx, &fields))
    }
}

/// Writes what the training of a language model ended with: the best by validation, else the last.
fn conclude(cx: &ActionCx<'_>, fields: &Fields) -> Result<(), Failure> {
    let (progress, arrays) = training::read(cx.part(&training::part_name(fields.train.steps())))?;
    let prefix = if progress.best.is_some() { "best." } else { "param." };
    let kept = arrays.into_iter().filter_map(|(name, array)| Some((name.strip_prefix(prefix)?.to_owned(), array)));
    let arrays: Arrays = kept.collect();
    let curve = |points: &mut dyn Iterator<Item = (u64, f64)>| points.collect::<Vec<_>>();
    let mut curves = json!({
        "version": 1,
        "train": curve(&mut progress.steps.iter().map(|(step, loss, ..)| (*step, *loss))),
        "validation": progress.validation,
        "learning_rate": curve(&mut progress.steps.iter().map(|(step, _, rate, _)| (*step, *rate))),
        "gradient_norm": curve(&mut progress.steps.iter().map(|(step, .., norm)| (*step, *norm))),
        "tokens": progress.tokens, "steps": progress.step, "best": progress.best,
    });
    if !progress.retries.is_empty() {
        curves["retries"] = json!(progress.retries);
    }
    let precision = fields.train.lower().map(Precision::name);
    if let Some(name) = precision {
        curves["precision"] = name.into();
    }
    fs::write(&cx.out().join("training.json"), curves.to_string().as_bytes())?;
    let best = progress.best.map_or_else(
        || format!("the last of {} steps", progress.step),
        |(loss, step)| format!("step {step} of {}, whose validation loss {loss:.4} is the least", progress.step),
    );
    let (label, base, data) = (&cx.decl.label, &fields.base, &fields.train.data);
    let computed = precision.map(|name| format!(" in {name}, weights in 32 bits")).unwrap_or_default();
    let card = if fields.method.is_full() {
        let n = write_whole(cx, &fields.base, arrays)?;
        format!(
            "---\nlibrary_name: transformers\nbase_model: {base}\n---\n\n# {label}\n\n`{base}`, {n} of its tensors trained on `{data}`{computed}; {best}.\n",
        )
    } else {
        let n = write_updates(cx, fields, &arrays)?;
        let (method, rank) = (fields.method.title(), fields.method.rank);
        format!(
            "---\nlibrary_name: peft\nbase_model: {base}\n---\n\n# {label}\n\n{method} of rank {rank} on {n} matrices of `{base}`, trained on `{data}`{computed}; {best}.\n`mlx/` has the same for mlx-lm.\n",
        )
    };
    Ok(fs::write(&cx.out().join("README.md"), card.as_bytes())?)
}

/// A language model's updates, for PEFT and for mlx-lm; how many matrices they are of.
fn write_updates(cx: &ActionCx<'_>, fields: &Fields, arrays: &Arrays) -> Result<usize, Failure> {
    let modules: Vec<String> =
        arrays.keys().filter_map(|name| name.strip_suffix(".lora_A.weight")).map(str::to_owned).collect();
    let settings = peft::Settings {
        base: &fields.base,
        task: Some("CAUSAL_LM"),
        rank: fields.method.rank,
        alpha: fields.method.alpha,
        rank_stabilised: fields.method.name == "rslora",
        decomposed: fields.method.decomposes(),
        dropout: fields.method.dropout,
        targets: &modules,
        convolutions: &[],
        whole: &[],
    };
    peft::write(cx.out(), &settings, arrays)?;
    let depth = match Config::read(cx.input(&fields.base))? {
        Config::Llama(config) => config.num_hidden_layers,
        _ => 0,
    };
    mlx_lm::write(&cx.out().join("mlx"), &settings, depth, fields.method.scale(), arrays)?;
    Ok(modules.len())
}

/// The base with its trained weights, a model that needs nothing else; how many tensors were trained.
fn write_whole(cx: &ActionCx<'_>, base: &str, trained: Arrays) -> Result<usize, Failure> {
    let (out, base) = (cx.out(), cx.input(base));
    let mut checkpoint = Checkpoint::open(base, None)?;
    let count = trained.len();
    checkpoint.arrays.extend(trained);
    write_model(out, &checkpoint.config, &checkpoint.arrays)?;
    copy_companions(base, out)?;
    Ok(count)
}
