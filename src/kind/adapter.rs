//! `adapter`: low-rank updates (LoRA, Hu et al., 2021) of a picture-text model's towers.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::Deserialize;

use super::features::decode_all;
use super::model::{TRAIN_FIELDS, Train, Trainer};
use super::{ActionCx, How, Kind, Needs, Pool, Run};
use crate::backend::rng::Rng;
use crate::backend::{CandleTensor, Params, Tensor};
use crate::failure::Failure;
use crate::format::dataset::Dataset;
use crate::format::image;
use crate::format::tensors::{Array, Arrays};
use crate::model::efficientnet_lite::Midway;
use crate::model::weights::Lora;
use crate::model::{Checkpoint, Config, Model, bert, head};
use crate::recipe::decl::{Decl, Problems};
use crate::recipe::glob;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::train::contrastive::{Concept, concepts, info_nce};
use crate::train::peft;
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Adapter;

static SCHEMA: Schema = Schema::new("adapter", "Low-rank updates of a model, in PEFT's layout.").children(&[
    Schema::new("base", "The model that is adapted.").arg("model", Type::NamedLabel).required(),
    Schema::new("method", "How.").arg("name", Type::Choice(&["lora"])).required().flat().props(&[
        Prop::new("rank", Type::Int(1, 1024), "of the updates").default(Default::Int(8)),
        Prop::new("alpha", Type::FloatAbove(0.0, 1e6), "the updates count alpha / rank").default(Default::Float(16.0)),
        Prop::new("dropout", Type::Float(0.0, 0.95), "on the updates' input").default(Default::Float(0.05)),
    ]),
    Schema::new("target-modules", "Globs over the names of the base's matrices.")
        .many_args("globs", Type::Text)
        .required(),
    Schema::new("heads", "Whether the projection heads go on training, and their dropout.").props(&[
        Prop::new("train", Type::Bool, "they do").default(Default::Bool(true)),
        Prop::new("dropout", Type::Float(0.0, 0.95), "share of their inputs dropped").default(Default::Float(0.5)),
    ]),
    Schema::new("train", "The data and how.").arg("data", Type::Label).children(TRAIN_FIELDS).required(),
]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    base: String,
    method: Method,
    target_modules: Vec<String>,
    heads: Option<Heads>,
    train: Train,
}

#[derive(Deserialize)]
struct Method {
    rank: usize,
    alpha: f64,
    dropout: f64,
}

#[derive(Clone, Copy, Deserialize)]
struct Heads {
    train: bool,
    dropout: f32,
}

impl Kind for Adapter {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: matrix products by our own kernels, whose last bits differ. 3: texts of two tags at most, pooled
    /// blocks, AdamW's steps in 32 bits.
    fn version(&self) -> u32 {
        3
    }

    fn check(&self, decl: &Decl, problems: &mut Problems<'_>) {
        let fields: Fields = decl.read();
        for (i, pattern) in fields.target_modules.iter().enumerate() {
            if let Err(error) = glob::compile(pattern) {
                problems.at(&format!("target-modules.{i}"), error.to_string(), "this glob", "");
            }
        }
    }

    fn alongside(&self, decl: &Decl) -> Vec<String> {
        vec![decl.read::<Fields>().base]
    }

    fn needs(&self, _decl: &Decl) -> Needs {
        Needs { pool: Pool::Machine, ..Needs::default() }
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Adapter {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let train = &fields.train;
        let heads = fields.heads.unwrap_or(Heads { train: true, dropout: 0.5 });
        let checkpoint = Checkpoint::open(cx.input(&fields.base), None)?;
        let Config::DualEncoder { text: text_config, .. } = checkpoint.config.clone() else {
            return Err(Failure::user(format!("{} is not a picture-text model", fields.base))
                .help("adapt a model with two towers"));
        };
        let mut model = Model::<CandleTensor>::new(&checkpoint)?;
        let modules = targets(&checkpoint.arrays, &fields.target_modules)?;
        let split = first_block(&modules).unwrap_or_else(|| model.network().map_or(0, |n| n.depth()));
        let data = Dataset::open(cx.input(&train.data))?;
        let (rows, held) = (data.rows("train")?, data.rows("validation")?);
        let (learn, validate) = (concepts(&rows), concepts(&held));
        if learn.is_empty() {
            return Err(
                Failure::target("the split `train` has no pictures").help("look at `split` and `image` of the dataset")
            );
        }
        let seen = Prefixes::new(cx, &model, "train", &rows, split, train.views, train.seed)?;
        let seen_held = Prefixes::new(cx, &model, "validation", &held, split, 1, train.seed)?;
        let mut params = begin(&modules, &checkpoint.arrays, fields.method.rank, train.seed)?;
        let whole: Vec<String> = checkpoint
            .arrays
            .keys()
            .filter(|n| {
                heads.train && (n.contains("_projection.0.") || n.contains("_projection.2.") || *n == "logit_scale")
            })
            .cloned()
            .collect();
        for name in &whole {
            let array = &checkpoint.arrays[name];
            params.insert(name.clone(), CandleTensor::from_f32(array.floats(), &array.shape)?);
        }
        let scale = fields.method.alpha / fields.method.rank as f64;
        let mut trainer = Trainer::new(train, learn.len());
        let mut rng = Rng::new(train.seed, "adapter batches");
        while !trainer.done() {
            let order = rng.permutation(learn.len());
            for chunk in order.chunks(train.batch) {
                let chosen: Vec<&Concept> = chunk.iter().map(|i| &learn[*i]).collect();
                let (mut pictures, mut picture_of, mut texts) = (vec![], vec![], vec![]);
                for (n, concept) in chosen.iter().enumerate() {
                    for row in &concept.rows {
                        pictures.push(row * train.views + rng.below(train.views));
                        picture_of.push(n);
                    }
                    texts.push(a_text(concept, &mut rng));
                }
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let ids = model.tokenize(&texts)?;
                let text_of: Vec<usize> = (0..chosen.len()).collect();
                let x = seen.gather(&pictures)?;
                let noise = |name: &str| RefCell::new(Rng::new(train.seed, &format!("{name} {}", trainer.step)));
                let lora_noise = (fields.method.dropout as f32, noise("lora dropout"));
                let head_noise = (heads.dropout, noise("head dropout"));
                let mut lora_noise = Some(lora_noise);
                let pass = &mut model;
                trainer.step(cx, &mut params, &mut |p| {
                    put(pass, p, scale, lora_noise.take());
                    let network = pass.network().expect("two towers");
                    let v = head::vision(
                        &pass.weights,
                        &network.tail(&pass.weights, x.clone(), split)?,
                        Some(&head_noise),
                    )?;
                    let t = bert::encode(&pass.weights, &text_config, "text.", &ids)?;
                    let t = head::text(&pass.weights, &t, Some(&head_noise))?;
                    info_nce(&v, &t, &picture_of, &text_of, pass.weights.get("logit_scale")?)
                })?;
            }
            put(&mut model, &params, scale, None);
            let loss = if validate.is_empty() { None } else { Some(validation(&model, &validate, &seen_held, split)?) };
            trainer.end_epoch(cx, &params, loss)?;
        }
        let params = trainer.best(params);
        write(cx, &fields, &modules, &whole, &params, &checkpoint.arrays)?;
        trainer.write_curves(cx.out())
    }
}

/// The label, any of its names, or the label with two of its tags. Never with all: the texts of a batch are padded
/// to the longest.
fn a_text(concept: &Concept, rng: &mut Rng) -> String {
    let label = &concept.texts[0];
    match rng.below(4) {
        0 | 1 => label.clone(),
        2 => concept.texts[rng.below(concept.names)].clone(),
        _ if concept.tags.is_empty() => label.clone(),
        _ => {
            let [a, b] = [0; 2].map(|_| &concept.tags[rng.below(concept.tags.len())]);
            format!("{label}: {a}, {b}")
        }
    }
}

/// Puts the trained values into the model.
fn put(
    model: &mut Model<CandleTensor>,
    params: &Params<CandleTensor>,
    scale: f64,
    dropout: Option<(f32, RefCell<Rng>)>,
) {
    let (lora, whole): (Params<_>, Params<_>) =
        params.iter().map(|(n, t)| (n.clone(), t.clone())).partition(|(n, _)| n.contains(".lora_"));
    whole.into_iter().for_each(|(name, tensor)| model.weights.set(&name, tensor));
    model.weights.set_lora(Some(Lora { params: lora, scale, dropout }));
}

/// The loss on the held-out concepts, by their labels.
fn validation(
    model: &Model<CandleTensor>,
    concepts: &[Concept],
    seen: &Prefixes,
    split: usize,
) -> Result<f32, Failure> {
    let network = model.network().expect("two towers");
    let first: Vec<usize> = concepts.iter().map(|c| c.rows[0]).collect();
    let pooled = network.tail(&model.weights, seen.gather(&first)?, split)?;
    let v = head::vision(&model.weights, &pooled, None)?;
    let names: Vec<&str> = concepts.iter().map(|c| c.texts[0].as_str()).collect();
    let t = model.text_batch(&model.tokenize(&names)?)?;
    let of: Vec<usize> = (0..concepts.len()).collect();
    Ok(info_nce(&v, &t, &of, &of, model.weights.get("logit_scale")?)?.scalar()?)
}

/// The matrices that the globs mean.
fn targets(arrays: &Arrays, globs: &[String]) -> Result<Vec<String>, Failure> {
    let matrices: Vec<&str> = arrays
        .iter()
        .filter(|(_, a)| matches!(a.shape[..], [_, _] | [_, _, 1, 1]))
        .filter_map(|(n, _)| n.strip_suffix(".weight"))
        .filter(|n| {
            !n.contains("embeddings") && !n.contains("_projection.") && !n.contains("_fc") && !n.contains("pooler")
        })
        .collect();
    let mut found = BTreeSet::new();
    for pattern in globs {
        let matcher = glob::compile(pattern).map_err(|e| Failure::user(e.to_string()))?;
        let before = found.len();
        found.extend(matrices.iter().filter(|n| matcher.is_match(n)).map(|n| (*n).to_owned()));
        if found.len() == before {
            let some: Vec<&str> = matrices.iter().step_by((matrices.len() / 4).max(1)).copied().collect();
            return Err(Failure::user(format!("`target-modules` \"{pattern}\" matches no matrix of the base"))
                .help(format!("its matrices are called, for example: {}", some.join(", "))));
        }
    }
    Ok(found.into_iter().collect())
}

/// The first block of the picture tower that is adapted.
fn first_block(modules: &[String]) -> Option<usize> {
    modules.iter().filter_map(|m| m.strip_prefix("vision._blocks.")?.split('.').next()?.parse().ok()).min()
}

/// A as PEFT begins it (Kaiming-uniform with a = sqrt(5): +-1/sqrt(in)), B zero.
fn begin(modules: &[String], arrays: &Arrays, rank: usize, seed: u64) -> Result<Params<CandleTensor>, Failure> {
    let mut params = Params::new();
    for module in modules {
        let shape = &arrays[&format!("{module}.weight")].shape;
        let (out, inner) = (shape[0], shape[1]);
        let mut rng = Rng::new(seed, module);
        let bound = 1.0 / (inner as f32).sqrt();
        let a: Vec<f32> = (0..rank * inner).map(|_| rng.between(-bound, bound)).collect();
        params.insert(format!("{module}.lora_A.weight"), CandleTensor::from_f32(&a, &[rank, inner])?);
        params.insert(format!("{module}.lora_B.weight"), CandleTensor::from_f32(&vec![0.0; out * rank], &[out, rank])?);
    }
    Ok(params)
}

/// What the network makes of the pictures before the first adapted block: it is the same at every step, so it is
/// computed once.
struct Prefixes {
    values: Vec<f32>,
    shape: [usize; 3],
    averages: Vec<f32>,
    width: usize,
}

impl Prefixes {
    fn new(
        cx: &mut ActionCx<'_>,
        model: &Model<CandleTensor>,
        name: &str,
        rows: &[crate::format::dataset::Row],
        split: usize,
        views: usize,
        seed: u64,
    ) -> Result<Self, Failure> {
        use rayon::prelude::*;
        let prep = model.preprocessing().expect("two towers");
        let network = model.network().expect("two towers");
        let decoded = decode_all(rows)?;
        let count = rows.len() * views;
        let mut all = Self { values: Vec::new(), shape: [0; 3], averages: Vec::new(), width: 0 };
        for start in (0..count).step_by(16) {
            let end = (start + 16).min(count);
            let batch: Vec<Vec<f32>> = (start..end)
                .into_par_iter()
                .map(|i| image::view(&decoded[i / views], i % views, &prep, seed, &rows[i / views].id))
                .collect::<Result<_, _>>()?;
            let x = CandleTensor::from_f32(&batch.concat(), &[end - start, prep.size, prep.size, 3])?;
            let Midway { x, averages } = network.prefix(&model.weights, &x, split)?;
            all.shape = [x.shape()[1], x.shape()[2], x.shape()[3]];
            all.values.extend(x.to_f32()?);
            if let Some(averages) = averages {
                all.width = averages.shape()[1];
                all.averages.extend(averages.to_f32()?);
            }
            cx.progress(&format!("prefix of {name}"), end as u64, count as u64, "pictures");
        }
        Ok(all)
    }

    fn gather(&self, which: &[usize]) -> crate::backend::Result<Midway<CandleTensor>> {
        let rows = |values: &[f32], size: usize| -> Vec<f32> {
            which.iter().flat_map(|i| &values[i * size..(i + 1) * size]).copied().collect()
        };
        let [h, w, c] = self.shape;
        let x = CandleTensor::from_f32(&rows(&self.values, h * w * c), &[which.len(), h, w, c])?;
        let averages = match self.width {
            0 => None,
            width => Some(CandleTensor::from_f32(&rows(&self.averages, width), &[which.len(), width])?),
        };
        Ok(Midway { x, averages })
    }
}

fn write(
    cx: &ActionCx<'_>,
    fields: &Fields,
    modules: &[String],
    whole: &[String],
    params: &Params<CandleTensor>,
    base: &Arrays,
) -> Result<(), Failure> {
    let convolutions: Vec<String> =
        modules.iter().filter(|m| base[&format!("{m}.weight")].shape.len() == 4).cloned().collect();
    let mut arrays = Arrays::new();
    for (name, tensor) in params {
        arrays.insert(name.clone(), Array::f32(&tensor.shape(), tensor.to_f32()?));
    }
    let whole_modules: BTreeSet<String> =
        whole.iter().filter_map(|n| n.split_once('.').map(|(m, _)| m.to_owned())).collect();
    // PEFT replaces whole modules, so all of a head's tensors go along, the trained and the fixed.
    for (name, array) in base {
        if whole_modules.iter().any(|m| name.starts_with(&format!("{m}."))) {
            arrays.entry(name.clone()).or_insert_with(|| array.clone());
        }
    }
    let settings = peft::Settings {
        base: &fields.base,
        rank: fields.method.rank,
        alpha: fields.method.alpha,
        dropout: fields.method.dropout,
        targets: modules,
        convolutions: &convolutions,
        whole: &whole_modules.into_iter().collect::<Vec<_>>(),
    };
    peft::write(cx.out(), &settings, &arrays)?;
    let card = format!(
        "---\nlibrary_name: peft\nbase_model: {base}\n---\n\n# {label}\n\nLoRA of rank {rank} on {n} matrices of `{base}`, trained on `{data}`.\n",
        base = fields.base,
        label = cx.decl.label,
        rank = fields.method.rank,
        n = modules.len(),
        data = fields.train.data
    );
    Ok(fs::write(&cx.out().join("README.md"), card.as_bytes())?)
}
