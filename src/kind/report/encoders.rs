//! A report of encoders: how near each one's vectors are to the first one's, and how quick it is.

use serde_json::{Value, json};

use super::{Fields, On, read_json, speed_name};
use crate::export::opened::Facts;
use crate::failure::Failure;
use crate::format::dataset::{Dataset, LEFT_OUT};
use crate::kind::exported::weight_bytes;
use crate::kind::features::{Vectors, base_of, read_images, read_texts};
use crate::kind::{ActionCx, Part, speed};
use crate::model::Checkpoint;
use crate::recipe::decl::Problems;
use crate::report::encoders::{Encoded, Rows, row};
use crate::report::numbers::{COSINE, Numbers, Of, SPEED, Subject, VERSION, short_names};
use crate::report::quantization::Quantization;

/// Finds what contradicts itself in a report of encoders.
pub(super) fn check(fields: &Fields, problems: &mut Problems<'_>) {
    let help = "name a dataset: on \"data/...\" split=\"test\"";
    if fields.on.is_empty() {
        problems.at("metrics", "the metric `cosine` needs `on`", "given here", help);
    }
    for (i, metric) in fields.metrics.iter().flatten().enumerate() {
        if ![COSINE, SPEED].contains(&metric.as_str()) {
            let what = format!("`{metric}` is of language models, and `cosine` of encoders");
            problems.at(&format!("metrics.{i}"), what, "this metric", "make two reports of it");
        }
    }
    let of_language = [("ask", !fields.ask.is_empty()), ("max-tokens", fields.max_tokens.is_some())];
    for (field, _) in of_language.into_iter().filter(|(_, given)| *given) {
        let path = if field == "ask" { "ask.0" } else { field };
        let what = format!("`{field}` is of language models, and the metric `cosine` of encoders");
        problems.at(path, what, "given here", "leave it out");
    }
    if fields.compare.len() < 2 {
        let what = "the metric `cosine` holds models against the first, and there is no other";
        problems.at("compare", what, "one model", "name the models that were made of it too");
    }
    for (i, on) in fields.on.iter().enumerate() {
        if on.max_length.is_some() {
            let what = "`max-length` is of language models: encoders cut texts as they are made to";
            problems.at(&format!("on.{i}.max-length"), what, "given here", "leave it out");
        }
    }
    for (i, limit) in fields.limit.iter().enumerate() {
        if limit.kl.is_some() {
            let help = "write how near they are to be: cosine=0.999";
            problems.at(&format!("limit.{i}.kl"), "encoders have no divergence", "this", help);
        }
    }
    fields.check_on(problems);
    fields.check_limits("cosine=0.999", problems);
}

fn part_name(model: usize, on: usize) -> String {
    format!("features-{model}-{on}")
}

/// Each model's vectors of each dataset, and its speed.
pub(super) fn parts(fields: &Fields) -> Vec<Part> {
    let mut parts = Vec::new();
    for (i, model) in fields.compare.iter().enumerate() {
        for (j, on) in fields.on.iter().enumerate() {
            let mut own = json!({ "of": model, "on": on.data, "splits": [on.split], "prompt": [] });
            if let Some(rows) = on.rows {
                own["rows"] = rows.into();
            }
            parts.push(Part { name: part_name(i, j), kind: "features", fields: own });
        }
        if fields.has(SPEED) {
            parts.push(fields.speed(i));
        }
    }
    parts
}

/// The numbers.
pub(super) fn measure(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<Numbers, Failure> {
    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    for (j, on) in fields.on.iter().enumerate() {
        if let Some(reason) = Dataset::open(cx.input(&on.data))?.left_out() {
            left_out.push(format!("{}, {} ({reason})", on.data, on.split));
            continue;
        }
        let encoded = encoded(cx, fields, j, on)?;
        for row in &encoded.rows {
            let name = format!("{}.{}.{}", on.data, on.split, row.subject);
            cx.metric(&format!("{name}.{COSINE}"), 1.0 - row.distance.value);
        }
        all.push(encoded);
    }
    let subjects = subjects(cx, fields)?;
    Ok(Numbers {
        version: VERSION,
        of: Of::Encoders,
        label: cx.decl.label.to_string(),
        metrics: fields.metrics.clone().unwrap_or_default(),
        machine: subjects[0].speed["machine"].as_str().unwrap_or("").to_owned(),
        seed: fields.seed,
        quantization: all.first().and_then(|encoded| {
            Quantization::of(&subjects, encoded.rows.iter().map(|row| Some(row.distance)), &fields.limits())
        }),
        subjects,
        encoded: all,
        left_out,
        ..Numbers::default()
    })
}

/// A model's vectors of a dataset, of the sorts that it encodes.
struct Made {
    texts: Option<Vectors>,
    pictures: Option<Vectors>,
}

impl Made {
    fn sorts(&self) -> Vec<Rows<'_>> {
        let all = [&self.texts, &self.pictures].into_iter().flatten();
        all.map(|vectors| Rows { width: vectors.width, values: &vectors.values }).collect()
    }
}

fn encoded(cx: &ActionCx<'_>, fields: &Fields, number: usize, on: &On) -> Result<Encoded, Failure> {
    let mut all: Vec<Made> = Vec::new();
    for i in 0..fields.compare.len() {
        let dir = cx.part(&part_name(i, number));
        debug_assert!(!dir.join(LEFT_OUT).exists(), "the dataset is not left out");
        let texts = dir.join("texts.json").exists().then(|| read_texts(dir)).transpose()?;
        let file = dir.join(format!("images-{}.safetensors", on.split));
        let pictures = file.exists().then(|| read_images(dir, &on.split)).transpose()?;
        all.push(Made { texts: texts.map(|(vectors, _)| vectors), pictures: pictures.map(|(vectors, _)| vectors) });
    }
    let count = |vectors: &Option<Vectors>| vectors.as_ref().map_or(0, |v| v.values.len() / v.width.max(1));
    let shape = |made: &Made| made.sorts().iter().map(|rows| (rows.width, rows.values.len())).collect::<Vec<_>>();
    let first = &all[0];
    if let Some(i) = all.iter().position(|made| shape(made) != shape(first)) {
        let message = format!("{} and {} give vectors of other widths or sorts", fields.compare[0], fields.compare[i]);
        return Err(Failure::user(message).help("compare a model with what was made of it"));
    }
    let (texts, pictures) = (count(&first.texts), count(&first.pictures));
    if texts.max(pictures) < 2 {
        let what = format!("the split `{}` of {} has {texts} captions and {pictures} pictures", on.split, on.data);
        return Err(Failure::target(what).help("name a split with more"));
    }
    let line = |i: usize| row(&fields.compare[i], &all[i].sorts(), &first.sorts(), fields.seed);
    let rows = (0..all.len()).map(line).collect();
    Ok(Encoded { on: on.data.clone(), split: on.split.clone(), texts, pictures, rows })
}

/// The models, with their sizes and speeds.
fn subjects(cx: &ActionCx<'_>, fields: &Fields) -> Result<Vec<Subject>, Failure> {
    let mut all = Vec::new();
    let mut parameters = None;
    for (i, (label, name)) in fields.compare.iter().zip(short_names(&fields.compare)).enumerate() {
        let dir = cx.input(label);
        let base = base_of(cx, dir)?;
        let own = weight_bytes(dir)?;
        let under = base.as_deref().map(weight_bytes).transpose()?;
        let bytes = own + under.unwrap_or(0);
        // An export has as many as the model that it stands beside.
        if parameters.is_none() && Facts::read(dir)?.is_none() {
            let checkpoint = Checkpoint::open(dir, base.as_deref())?;
            parameters = Some(checkpoint.arrays.values().map(|a| a.shape.iter().product::<usize>()).sum::<usize>());
        }
        let speed = match fields.has(SPEED) {
            true => read_json(&cx.part(&speed_name(i)).join(speed::SPEED))?,
            false => Value::Null,
        };
        let bits_per_weight = parameters.map(|count| 8.0 * bytes as f64 / (count as f64).max(1.0));
        let own_bytes = under.map(|_| own);
        all.push(Subject {
            label: label.clone(),
            name,
            bytes,
            bits_per_weight,
            own_bytes,
            speed,
            ..Subject::default()
        });
    }
    Ok(all)
}
