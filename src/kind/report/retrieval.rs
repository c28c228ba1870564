//! A report of picture-text models: what they find, by their vectors.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{Fields, read_json, speed_name};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::format::dataset::{Dataset, Row};
use crate::kind::features::{FEATURES, Vectors, read_images, read_texts};
use crate::kind::speed::SPEED;
use crate::kind::{ActionCx, Part};
use crate::measure::estimate::{mean, paired};
use crate::model::zero_shot;
use crate::report::figures::Figure;
use crate::report::numbers::{Numbers, Subject, VERSION, short_names};
use crate::report::retrieval::figures::CLASSES;
use crate::report::retrieval::page::{Examples, Picture, Query};
use crate::report::retrieval::{self, Class, ZeroShot, ZeroShotRow, by_class, differences, metrics, products, ranks};
use crate::report::words::cut;

/// A dataset and what of it is needed.
struct Needed {
    on: String,
    splits: BTreeSet<String>,
    prompts: Vec<Value>,
}

fn needed(fields: &Fields) -> Vec<Needed> {
    let mut all: BTreeMap<&str, Needed> = BTreeMap::new();
    let add = |on: &str, split: &str, prompts: Vec<Value>, all: &mut BTreeMap<_, Needed>, key| {
        let entry =
            all.entry(key).or_insert_with(|| Needed { on: on.into(), splits: BTreeSet::new(), prompts: vec![] });
        entry.splits.insert(split.to_owned());
        entry.prompts.extend(prompts);
    };
    for test in &fields.test {
        add(&test.on, &test.split, vec![], &mut all, test.on.as_str());
    }
    for zero in &fields.zero_shot {
        let prompts = zero.prompt.iter().map(|p| json!({"template": p, "column": zero.column})).collect();
        add(&zero.on, &zero.split, prompts, &mut all, zero.on.as_str());
    }
    all.into_values().collect()
}

fn part_name(model: usize, on: &str) -> String {
    format!("features-{model}-{}", on.replace('/', "-"))
}

/// Each model's vectors for each dataset, and its speed.
pub(super) fn parts(fields: &Fields) -> Vec<Part> {
    let mut parts = Vec::new();
    for (i, model) in fields.compare.iter().enumerate() {
        for need in needed(fields) {
            parts.push(Part {
                name: part_name(i, &need.on),
                kind: "features",
                fields: json!({"of": model, "on": need.on, "splits": need.splits, "prompt": need.prompts}),
            });
        }
        parts.push(fields.speed(i));
    }
    parts
}

/// The numbers, the plot that they do not hold, and examples.
pub(super) fn measure(cx: &mut ActionCx<'_>, fields: &Fields) -> Result<(Numbers, Option<Figure>, Examples), Failure> {
    let names = short_names(&fields.compare);
    let mut left_out = Vec::new();
    let (mut tests, mut all_ranks) = (Vec::new(), Vec::new());
    let (mut examples, mut similarity) = (Examples::default(), None);
    for test in &fields.test {
        let data = Dataset::open(cx.input(&test.on))?;
        if let Some(reason) = data.left_out() {
            left_out.push(format!("{} ({reason})", test.name));
            continue;
        }
        check_both(cx, fields, &test.on)?;
        let rows = data.rows(&test.split)?;
        let chosen = gallery(&rows, test.r#where.as_deref(), test.sample, fields.seed);
        if chosen.len() < 2 {
            return Err(Failure::target(format!("the test \"{}\" has {} pictures", test.name, chosen.len()))
                .help("look at its `split` and `where`"));
        }
        let n = chosen.len();
        let mut lines = Vec::new();
        let mut ranked: Vec<Vec<usize>> = Vec::new();
        let mut shown: Option<Shown> = None;
        for (i, subject) in fields.compare.iter().enumerate() {
            let dir = cx.part(&part_name(i, &test.on)).to_owned();
            let (images, views) = read_images(&dir, &test.split)?;
            let (texts, index) = read_texts(&dir)?;
            let pictures: Vec<&[f32]> = chosen.iter().map(|r| images.row(r * views)).collect();
            let queries: Vec<&[f32]> = chosen.iter().map(|r| texts.row(index[&rows[*r].caption])).collect();
            let scores = products(&queries, &pictures);
            let back = products(&pictures, &queries);
            let right = |q: usize, g: usize| q == g;
            let forward = ranks(&scores, n, &right);
            let t2i = metrics(&forward, fields.seed);
            let i2t = metrics(&ranks(&back, n, &right), fields.seed);
            cx.metric(&format!("{}.{subject}.recall@10", test.name), t2i["recall@10"].value);
            if tests.is_empty() {
                shown.get_or_insert_with(|| Shown::of(&test.name, &rows, &chosen, &forward)).add(&scores, &forward);
                if i == 0 {
                    let m = n.min(24);
                    let captions: Vec<String> = chosen[..m].iter().map(|r| cut(&rows[*r].caption, 30)).collect();
                    let cells = (0..m).flat_map(|q| scores[q * n..q * n + m].to_vec()).collect::<Vec<f32>>();
                    similarity = Some(retrieval::figures::similarity(&names[0], 0, &test.name, &captions, &cells));
                }
            }
            let difference = ranked.first().map(|first| differences(&forward, first, fields.seed));
            lines.push(retrieval::Row { subject: subject.clone(), t2i, i2t, difference });
            ranked.push(forward);
        }
        if let Some(shown) = shown {
            examples = shown.examples;
        }
        tests.push(retrieval::Test {
            name: test.name.clone(),
            n,
            chance: 10f64.min(n as f64) / n as f64,
            rows: lines,
            ranks: ranked.clone(),
        });
        all_ranks.push(ranked);
    }
    let zero_shot = zero_shots(cx, fields, &mut left_out)?;
    let subjects = subjects(cx, fields, names)?;
    let numbers = Numbers {
        version: VERSION,
        label: cx.decl.label.to_string(),
        machine: subjects[0].speed["machine"].as_str().unwrap_or("").to_owned(),
        seed: fields.seed,
        quantized: retrieval::quantized(&subjects, &all_ranks, fields.seed),
        subjects,
        tests,
        zero_shot,
        left_out,
        ..Numbers::default()
    };
    Ok((numbers, similarity, examples))
}

/// That every model made vectors of pictures and of texts: what has one part of such a model finds nothing.
fn check_both(cx: &ActionCx<'_>, fields: &Fields, on: &str) -> Result<(), Failure> {
    for (i, label) in fields.compare.iter().enumerate() {
        let facts: Value = read_json(&cx.part(&part_name(i, on)).join(FEATURES))?;
        let lacks =
            [("image", "pictures"), ("text", "texts")].into_iter().find(|(name, _)| facts["dims"][name].is_null());
        if let Some((_, what)) = lacks {
            return Err(Failure::user(format!(
                "{label} makes no vectors of {what}, and retrieval needs those of both"
            ))
            .help("compare picture-text models; encoders of either, with `metrics \"cosine\"` and `on`"));
        }
    }
    Ok(())
}

/// The rows of a gallery: filtered, one for each caption, sampled by the seed, in the dataset's order.
fn gallery(rows: &[Row], filter: Option<&str>, sample: Option<usize>, seed: u64) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let passes = |row: &Row| {
        filter.and_then(|f| f.split_once('=')).is_none_or(|(c, v)| row.columns.get(c).is_some_and(|have| have == v))
    };
    let mut chosen: Vec<usize> = (0..rows.len())
        .filter(|i| rows[*i].image.is_some() && passes(&rows[*i]) && seen.insert(&rows[*i].caption))
        .collect();
    if let Some(sample) = sample {
        chosen.sort_by_key(|i| Digest::of(format!("{seed} {}", rows[*i].id).as_bytes()));
        chosen.truncate(sample);
        chosen.sort_unstable();
    }
    chosen
}

/// The examples of a test under way, one model after the other.
struct Shown<'a> {
    rows: &'a [Row],
    chosen: &'a [usize],
    queries: Vec<usize>,
    /// Where a gallery's picture is among those shown.
    places: BTreeMap<usize, usize>,
    examples: Examples,
}

impl<'a> Shown<'a> {
    /// Four captions that the first model answers at once and four that it does not, evenly over the gallery.
    fn of(test: &str, rows: &'a [Row], chosen: &'a [usize], ranks: &[usize]) -> Self {
        let pick = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
            let all: Vec<usize> = (0..chosen.len()).filter(|q| wanted(ranks[*q])).collect();
            all.iter().step_by((all.len() / 4).max(1)).take(4).copied().collect()
        };
        let queries = [pick(&|r| r == 1), pick(&|r| r > 5)].concat();
        let examples = Examples { test: test.to_owned(), n: chosen.len(), ..Examples::default() };
        Self { rows, chosen, queries, places: BTreeMap::new(), examples }
    }

    /// Adds what a model finds.
    fn add(&mut self, scores: &[f32], ranks: &[usize]) {
        let n = self.chosen.len();
        let mut queries = Vec::new();
        for q in self.queries.clone() {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| scores[q * n + b].total_cmp(&scores[q * n + a]).then(a.cmp(b)));
            let found = order.iter().take(5).map(|g| (self.place(*g), *g == q)).collect();
            queries.push(Query { caption: self.rows[self.chosen[q]].caption.clone(), rank: ranks[q], found });
        }
        self.examples.models.push(queries);
    }

    fn place(&mut self, picture: usize) -> usize {
        *self.places.entry(picture).or_insert_with(|| {
            let row = &self.rows[self.chosen[picture]];
            let bytes = row.image.as_deref().unwrap_or_default();
            let data = base64::engine::general_purpose::STANDARD.encode(bytes);
            self.examples.pictures.push(Picture { caption: row.caption.clone(), mime: mime(bytes), data });
            self.examples.pictures.len() - 1
        })
    }
}

/// A picture's media type, by how it begins.
fn mime(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'R', b'I', b'F', b'F', ..] => "image/webp",
        [0xff, 0xd8, ..] => "image/jpeg",
        [b'G', b'I', b'F', ..] => "image/gif",
        [b'B', b'M', ..] => "image/bmp",
        _ => "image/png",
    }
}

/// The models, with their sizes and speeds.
fn subjects(cx: &ActionCx<'_>, fields: &Fields, names: Vec<String>) -> Result<Vec<Subject>, Failure> {
    let mut all = Vec::new();
    for (i, (label, name)) in fields.compare.iter().zip(names).enumerate() {
        let speed: Value = read_json(&cx.part(&speed_name(i)).join(SPEED))?;
        let config = cx.input(label).join("config.json");
        let bits = if config.exists() { read_json::<Value>(&config)?["quantization"]["bits"].as_u64() } else { None };
        let bytes = speed["bytes"].as_u64().unwrap_or(0);
        all.push(Subject { label: label.clone(), name, bits, bytes, speed, ..Subject::default() });
    }
    Ok(all)
}

fn zero_shots(cx: &mut ActionCx<'_>, fields: &Fields, left_out: &mut Vec<String>) -> Result<Vec<ZeroShot>, Failure> {
    let mut all = Vec::new();
    for zero in &fields.zero_shot {
        let data = Dataset::open(cx.input(&zero.on))?;
        if let Some(reason) = data.left_out() {
            left_out.push(format!("zero-shot by {} ({reason})", zero.column));
            continue;
        }
        check_both(cx, fields, &zero.on)?;
        let rows = data.rows(&zero.split)?;
        let chosen = gallery(&rows, zero.r#where.as_deref(), None, fields.seed);
        let class = |r: usize| rows[r].columns.get(&zero.column).map_or("", String::as_str);
        let classes: Vec<&str> = rows
            .iter()
            .filter_map(|r| r.columns.get(&zero.column))
            .map(String::as_str)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut lines = Vec::new();
        let mut reference: Option<Vec<f64>> = None;
        for (i, subject) in fields.compare.iter().enumerate() {
            let dir = cx.part(&part_name(i, &zero.on)).to_owned();
            let (images, views) = read_images(&dir, &zero.split)?;
            let (texts, index) = read_texts(&dir)?;
            let means: Vec<Vec<f32>> = classes.iter().map(|c| class_vector(c, &zero.prompt, &texts, &index)).collect();
            // A square of very many classes would neither fit nor be read.
            let is_square = i == 0 && classes.len() <= CLASSES;
            let mut named = vec![0u32; if is_square { classes.len().pow(2) } else { 0 }];
            let hits: Vec<f64> = chosen
                .iter()
                .map(|r| {
                    let scores =
                        products(&[images.row(r * views)], &means.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    let best = (0..classes.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
                    // A picture may have no class: then none is right.
                    if let (true, Ok(own)) = (is_square, classes.binary_search(&class(*r))) {
                        named[own * classes.len() + best] += 1;
                    }
                    f64::from(u8::from(classes[best] == class(*r)))
                })
                .collect();
            lines.push(ZeroShotRow {
                subject: subject.clone(),
                accuracy: mean(&hits, fields.seed),
                classes: by_class(chosen.iter().map(|r| class(*r)).zip(hits.iter().copied())),
                difference: reference.as_ref().map(|first| paired(&hits, first, fields.seed)),
                named,
            });
            reference.get_or_insert(hits);
        }
        let count = |name: &str| chosen.iter().filter(|r| class(**r) == name).count();
        let classes: Vec<Class> = classes.iter().map(|c| Class { name: (*c).to_owned(), n: count(c) }).collect();
        let largest = classes.iter().map(|c| c.n).max().unwrap_or(0);
        all.push(ZeroShot {
            column: zero.column.clone(),
            n: chosen.len(),
            chance: 1.0 / classes.len().max(1) as f64,
            majority: largest as f64 / chosen.len().max(1) as f64,
            classes,
            prompts: zero.prompt.clone(),
            rows: lines,
        });
    }
    Ok(all)
}

/// The mean of a class's prompts, of length 1.
fn class_vector(class: &str, prompts: &[String], texts: &Vectors, index: &BTreeMap<String, usize>) -> Vec<f32> {
    let rows = prompts.iter().map(|prompt| texts.row(index[&zero_shot::filled(prompt, class)]));
    zero_shot::mean(rows, texts.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_known_by_how_they_begin() {
        assert_eq!(
            [mime(b"RIFFxxxxWEBP"), mime(b"\x89PNG"), mime(b"\xff\xd8\xff")],
            ["image/webp", "image/png", "image/jpeg"]
        );
    }

    #[test]
    fn every_model_is_shown_the_same_captions_and_each_picture_is_kept_once() {
        let row = |i: usize| Row {
            id: i.to_string(),
            image: Some(vec![i as u8]),
            caption: format!("c{i}"),
            ..Row::default()
        };
        let rows: Vec<Row> = (0..3).map(row).collect();
        let scores = [0.9, 0.5, 0.1, 0.9, 0.5, 0.1, 0.9, 0.5, 0.1];
        let ranks = [1, 9, 9];
        let mut shown = Shown::of("t", &rows, &[0, 1, 2], &ranks);
        shown.add(&scores, &ranks);
        shown.add(&scores.map(|s| 1.0 - s), &[3, 2, 1]);
        let Examples { pictures, models, n, .. } = shown.examples;
        assert_eq!((pictures.len(), models.len(), n), (3, 2, 3));
        let captions = |m: usize| models[m].iter().map(|q| q.caption.clone()).collect::<Vec<_>>();
        assert_eq!(captions(0), captions(1));
        let found = &models[1][0].found;
        assert_eq!(
            found.iter().map(|(p, right)| (pictures[*p].caption.as_str(), *right)).collect::<Vec<_>>(),
            [("c2", false), ("c1", false), ("c0", true)]
        );
    }
}
