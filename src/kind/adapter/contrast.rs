//! The training of a picture-text model: of low-rank updates of its towers, or of the whole of it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use image::RgbaImage;

use super::{Fields, write_whole};
use crate::backend::arrays::{Array, Arrays};
use crate::backend::rng::Rng;
use crate::backend::{Params, Tensor, Texts};
use crate::failure::Failure;
use crate::format::dataset::{Dataset, Row};
use crate::format::image::{self as picture, Preprocessing};
use crate::kind::ActionCx;
use crate::kind::features::decode_all;
use crate::kind::model::Trainer;
use crate::model::tower::Midway;
use crate::model::{Checkpoint, Config, Model, clip};
use crate::train::contrastive::{Concept, concepts, info_nce};
use crate::train::method::{begin, begin_whole, targets, whole};
use crate::train::peft;
use crate::util::fs;

/// Adapts a picture-text model.
pub(super) fn contrast<T: Tensor>(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<(), Failure> {
    let train = &fields.train.contrastive();
    let checkpoint = Checkpoint::open(cx.input(&fields.base), None)?;
    let is_clip = match checkpoint.config {
        Config::Clip(_) => true,
        Config::DualEncoder { .. } => false,
        _ => {
            let what = format!("{} is not a picture-text model", fields.base);
            return Err(Failure::user(what).help("adapt a model with two towers"));
        }
    };
    let dropout = if is_clip { 0.0 } else { 0.5 };
    let dropout = fields.heads.and_then(|heads| heads.dropout).unwrap_or(dropout);
    let trains_heads = fields.heads.is_none_or(|heads| heads.train);
    let mut model = Model::<T>::new(&checkpoint)?;
    let (modules, whole) = trained(fields, &checkpoint, trains_heads)?;
    let names = modules.iter().chain(&whole).map(|name| name.as_str());
    let split = names.filter_map(|name| model.tower().ok()?.piece(name)).min().unwrap_or(model.tower()?.depth());
    let data = Dataset::open(cx.input(&train.data))?;
    let is_held_out = data.splits().iter().any(|split| split == "validation");
    let (rows, held) = (data.rows("train")?, if is_held_out { data.rows("validation")? } else { Vec::new() });
    let (learn, validate) = (concepts(&rows), concepts(&held));
    if learn.is_empty() {
        return Err(
            Failure::target("the split `train` has no pictures").help("look at `split` and `image` of the dataset")
        );
    }
    let views = Views::new(&model, &rows, train.views, train.seed)?;
    let seen = Prefixes::new(cx, &model, "train", views, split)?;
    let views = Views::new(&model, &held, 1, train.seed)?;
    let seen_held = Prefixes::new(cx, &model, "validation", views, split)?;
    let mut params = begin(&modules, &checkpoint.arrays, &fields.method, train.seed)?;
    params.extend(begin_whole(&whole, &checkpoint.arrays)?);
    let scale = fields.method.scale();
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
            let ids = Texts::new(&model.tokenize(&texts)?);
            let text_of: Vec<usize> = (0..chosen.len()).collect();
            let x = seen.gather(&model, &pictures)?;
            let noise = |name: &str| RefCell::new(Rng::new(train.seed, &format!("{name} {}", trainer.step)));
            let lora_noise = (fields.method.dropout as f32, noise("lora dropout"));
            let head_noise = (dropout, noise("head dropout"));
            let mut lora_noise = Some(lora_noise);
            let pass = &mut model;
            trainer.step(cx, &mut params, &mut |p| {
                pass.weights.put(p, scale, lora_noise.take());
                let tower = pass.tower().expect("a picture-text model");
                let pooled = tower.tail(&pass.weights, x.clone(), split)?;
                let v = pass.project_pictures(pooled, Some(&head_noise))?;
                let t = pass.text_batch(&ids, Some(&head_noise))?;
                info_nce(&v, &t, &picture_of, &text_of, pass.weights.get("logit_scale")?)
            })?;
        }
        model.weights.put(&params, scale, None);
        let loss = if validate.is_empty() { None } else { Some(validation(&model, &validate, &seen_held, split)?) };
        trainer.end_epoch(cx, &params, loss)?;
    }
    let params = trainer.best(params);
    write(cx, fields, &modules, &whole, &params, &checkpoint.arrays)?;
    trainer.write_curves(cx.out())
}

/// The matrices that get updates, and the weights that are trained themselves.
fn trained(
    fields: &Fields,
    checkpoint: &Checkpoint,
    trains_heads: bool,
) -> Result<(Vec<String>, Vec<String>), Failure> {
    let (arrays, globs) = (&checkpoint.arrays, fields.target_modules.as_deref());
    let is_head = |name: &str| match checkpoint.config {
        Config::Clip(_) => clip::Config::is_head(name),
        _ => name.contains("_projection.0.") || name.contains("_projection.2.") || name == "logit_scale",
    };
    if fields.method.is_full() {
        let Config::Clip(_) = checkpoint.config else {
            let what = format!("the method `full` cannot train {}, two towers that were trained apart", fields.base);
            return Err(Failure::user(what).help("adapt it by `lora`; `full` is for CLIP models and language models"));
        };
        let names = whole(arrays, &|_| true, globs)?;
        return Ok((Vec::new(), names.into_iter().filter(|name| trains_heads || !is_head(name)).collect()));
    }
    let modules = targets(arrays, globs.unwrap_or_default())?;
    // A head that gets updates is not trained beside them.
    let updated = |name: &str| name.strip_suffix(".weight").is_some_and(|module| modules.iter().any(|m| m == module));
    let heads = arrays.keys().filter(|name| trains_heads && is_head(name) && !updated(name)).cloned().collect();
    Ok((modules, heads))
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

/// The loss on the held-out concepts, by their labels.
fn validation<T: Tensor>(
    model: &Model<T>,
    concepts: &[Concept],
    seen: &Prefixes,
    split: usize,
) -> Result<f32, Failure> {
    let first: Vec<usize> = concepts.iter().map(|c| c.rows[0]).collect();
    let pooled = model.tower()?.tail(&model.weights, seen.gather(model, &first)?, split)?;
    let v = model.project_pictures(pooled, None)?;
    let names: Vec<&str> = concepts.iter().map(|c| c.texts[0].as_str()).collect();
    let t = model.text_batch(&Texts::new(&model.tokenize(&names)?), None)?;
    let of: Vec<usize> = (0..concepts.len()).collect();
    Ok(info_nce(&v, &t, &of, &of, model.weights.get("logit_scale")?)?.scalar()?)
}

/// What the tower makes of the pictures before the first piece that is trained: it is the same at every step, so it
/// is computed once. Where the first of all is trained, the pictures themselves, which are drawn when they are wanted.
enum Prefixes {
    Computed { values: Vec<f32>, shape: Vec<usize>, averages: Vec<f32>, width: usize },
    Drawn(Views),
}

/// Each row's picture with its views, numbered one after the other.
struct Views {
    pictures: Vec<(RgbaImage, String)>,
    views: usize,
    prep: Preprocessing,
    seed: u64,
}

impl Views {
    fn new<T: Tensor>(model: &Model<T>, rows: &[Row], views: usize, seed: u64) -> Result<Self, Failure> {
        let prep = model.preprocessing().expect("a picture-text model");
        let pictures = decode_all(rows)?.into_iter().zip(rows).map(|(p, row)| (p, row.id.clone())).collect();
        Ok(Self { pictures, views, prep, seed })
    }

    /// -> [pictures, size, size, 3]
    fn draw<T: Tensor>(&self, which: &[usize]) -> Result<T, Failure> {
        use rayon::prelude::*;
        let draw = |i: &usize| {
            let (image, id) = &self.pictures[i / self.views];
            picture::view(image, i % self.views, &self.prep, self.seed, id)
        };
        let batch: Vec<Vec<f32>> = which.par_iter().map(draw).collect::<Result<_, _>>()?;
        let size = self.prep.size;
        Ok(T::from_f32(&batch.concat(), &[which.len(), size, size, 3])?)
    }
}

impl Prefixes {
    fn new<T: Tensor>(
        cx: &mut ActionCx<'_>,
        model: &Model<T>,
        name: &str,
        views: Views,
        split: usize,
    ) -> Result<Self, Failure> {
        let is_clip = matches!(model.config, Config::Clip(_));
        if split == 0 && is_clip {
            return Ok(Self::Drawn(views));
        }
        let count = views.pictures.len() * views.views;
        let (mut all_values, mut all_averages, mut shape, mut width) = (vec![], vec![], vec![], 0);
        for start in (0..count).step_by(16) {
            let end = (start + 16).min(count);
            let x = views.draw(&(start..end).collect::<Vec<_>>())?;
            let Midway { x, averages } = model.tower()?.prefix(&model.weights, &x, split)?;
            shape = x.shape()[1..].to_vec();
            all_values.extend(x.to_f32()?);
            if let Some(averages) = averages {
                width = averages.shape()[1];
                all_averages.extend(averages.to_f32()?);
            }
            cx.progress(&format!("prefix of {name}"), end as u64, count as u64, "pictures");
        }
        Ok(Self::Computed { values: all_values, shape, averages: all_averages, width })
    }

    fn gather<T: Tensor>(&self, model: &Model<T>, which: &[usize]) -> Result<Midway<T>, Failure> {
        let (values, shape, averages, width) = match self {
            Self::Computed { values, shape, averages, width } => (values, shape, averages, *width),
            Self::Drawn(views) => {
                return Ok(model.tower()?.prefix(&model.weights, &views.draw(which)?, 0)?);
            }
        };
        let rows = |values: &[f32], size: usize| -> Vec<f32> {
            which.iter().flat_map(|i| &values[i * size..(i + 1) * size]).copied().collect()
        };
        let whole: Vec<usize> = std::iter::once(which.len()).chain(shape.iter().copied()).collect();
        let x = T::from_f32(&rows(values, shape.iter().product()), &whole)?;
        let averages = match width {
            0 => None,
            width => Some(T::from_f32(&rows(averages, width), &[which.len(), width])?),
        };
        Ok(Midway { x, averages })
    }
}

fn write<T: Tensor>(
    cx: &ActionCx<'_>,
    fields: &Fields,
    modules: &[String],
    whole: &[String],
    params: &Params<T>,
    base: &Arrays,
) -> Result<(), Failure> {
    let mut arrays = Arrays::new();
    for (name, tensor) in params {
        arrays.insert(name.clone(), Array::f32(&tensor.shape(), tensor.to_f32()?));
    }
    let (label, base_label, data) = (&cx.decl.label, &fields.base, &fields.train.data);
    if fields.method.is_full() {
        let n = write_whole(cx, base_label, arrays)?;
        let card = format!(
            "---\nlibrary_name: transformers\nbase_model: {base_label}\n---\n\n# {label}\n\n`{base_label}`, {n} of its tensors trained on `{data}`.\n",
        );
        return Ok(fs::write(&cx.out().join("README.md"), card.as_bytes())?);
    }
    let convolutions: Vec<String> =
        modules.iter().filter(|m| base[&format!("{m}.weight")].shape.len() == 4).cloned().collect();
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
        task: None,
        rank: fields.method.rank,
        alpha: fields.method.alpha,
        rank_stabilised: fields.method.name == "rslora",
        decomposed: fields.method.decomposes(),
        dropout: fields.method.dropout,
        targets: modules,
        convolutions: &convolutions,
        whole: &whole_modules.into_iter().collect::<Vec<_>>(),
    };
    peft::write(cx.out(), &settings, &arrays)?;
    let (method, rank, n) = (fields.method.title(), fields.method.rank, modules.len());
    let card = format!(
        "---\nlibrary_name: peft\nbase_model: {base_label}\n---\n\n# {label}\n\n{method} of rank {rank} on {n} matrices of `{base_label}`, trained on `{data}`.\n",
    );
    Ok(fs::write(&cx.out().join("README.md"), card.as_bytes())?)
}
