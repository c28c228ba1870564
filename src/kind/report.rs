//! `report`: models side by side on pictures they did not see.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::features::{Vectors, read_images, read_texts};
use super::{ActionCx, BACKEND, How, Kind, Part, Run};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::format::dataset::{Dataset, Row};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::report::figures::{self, Figure, Training};
use crate::report::numbers::{self, Class, Numbers, Subject, ZeroShot, ZeroShotRow};
use crate::report::numbers::{by_class, differences, metrics, short_names};
use crate::report::page::{self, Examples, Picture, Query};
use crate::report::retrieval::{mean, paired, products, ranks};
use crate::report::{plot, tables, words};
use crate::util::fs;

/// The kind.
#[derive(Debug)]
pub struct Report;

static SCHEMA: Schema =
    Schema::new("report", "Models side by side: retrieval, zero-shot, size and speed.").children(&[
        Schema::new("compare", "The models.").many_args("models", Type::NamedLabel).required(),
        Schema::new("test", "A gallery: one picture for each caption.")
            .arg("name", Type::Text)
            .props(&[
                Prop::new("on", Type::Label, "the dataset").required(),
                Prop::new("split", Type::Text, "its split").required(),
                Prop::new("where", Type::Text, "only rows of this, COLUMN=VALUE"),
                Prop::new("sample", Type::Int(2, 1_000_000), "at most so many, chosen by the seed"),
            ])
            .some(),
        Schema::new("zero-shot", "Classification by the names of a column.")
            .arg("column", Type::Text)
            .props(&[
                Prop::new("on", Type::Label, "the dataset").required(),
                Prop::new("split", Type::Text, "its split").required(),
                Prop::new("where", Type::Text, "only rows of this, COLUMN=VALUE"),
            ])
            .children(&[Schema::new("prompt", "A text with {} for the name; several are averaged.")
                .arg("template", Type::Text)
                .some()])
            .many(),
        Schema::new("seed", "Of samples and intervals.").arg("seed", Type::Int(0, i64::MAX)).default(Default::Int(0)),
        BACKEND,
    ]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    compare: Vec<String>,
    test: Vec<Test>,
    zero_shot: Vec<ByNames>,
    seed: u64,
}

#[derive(Deserialize)]
struct Test {
    name: String,
    on: String,
    split: String,
    r#where: Option<String>,
    sample: Option<usize>,
}

#[derive(Deserialize)]
struct ByNames {
    column: String,
    on: String,
    split: String,
    r#where: Option<String>,
    prompt: Vec<String>,
}

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

impl Kind for Report {
    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    /// 1: first. 2: paired differences, accuracy by class, what quantization costs, and another page.
    fn version(&self) -> u32 {
        2
    }

    fn parts(&self, decl: &Decl) -> Vec<Part> {
        let fields: Fields = decl.read();
        let mut parts = Vec::new();
        for (i, model) in fields.compare.iter().enumerate() {
            for need in needed(&fields) {
                parts.push(Part {
                    name: part_name(i, &need.on),
                    kind: "features",
                    fields: json!({"of": model, "on": need.on, "splits": need.splits, "prompt": need.prompts}),
                });
            }
            parts.push(Part { name: format!("speed-{i}"), kind: "speed", fields: json!({ "of": model }) });
        }
        parts
    }

    fn how(&self) -> How<'_> {
        How::Inside(self)
    }
}

impl Run for Report {
    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
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
                        similarity = Some(figures::similarity(&names[0], 0, &test.name, &captions, &cells));
                    }
                }
                let difference = ranked.first().map(|first| differences(&forward, first, fields.seed));
                lines.push(numbers::Row { subject: subject.clone(), t2i, i2t, difference });
                ranked.push(forward);
            }
            if let Some(shown) = shown {
                examples = shown.examples;
            }
            tests.push(numbers::Test {
                name: test.name.clone(),
                n,
                chance: 10f64.min(n as f64) / n as f64,
                rows: lines,
            });
            all_ranks.push(ranked);
        }
        let zero_shot = zero_shots(cx, &fields, &mut left_out)?;
        let subjects = subjects(cx, &fields, names)?;
        let mut numbers = Numbers {
            version: 2,
            label: cx.decl.label.to_string(),
            headline: Vec::new(),
            machine: subjects[0].speed["machine"].as_str().unwrap_or("").to_owned(),
            seed: fields.seed,
            quantized: numbers::quantized(&subjects, &all_ranks, fields.seed),
            subjects,
            tests,
            zero_shot,
            left_out,
        };
        numbers.headline = words::headline(&numbers);
        let mut plots = figures::all(&numbers, &training(cx, &fields));
        plots.extend(similarity);
        write(cx, &numbers, &plots, &examples)
    }
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

/// A caption that fits its place.
fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['\u{2026}']).collect()
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
    let read = |path: &std::path::Path| -> Result<Value, Failure> {
        serde_json::from_str(&fs::read_text(path)?).map_err(|e| Failure::target(format!("{}: {e}", path.display())))
    };
    let mut all = Vec::new();
    for (i, (label, name)) in fields.compare.iter().zip(names).enumerate() {
        let speed = read(&cx.part(&format!("speed-{i}")).join("speed.json"))?;
        let config = cx.input(label).join("config.json");
        let bits = if config.exists() { read(&config)?["quantization"]["bits"].as_u64() } else { None };
        let bytes = speed["bytes"].as_u64().unwrap_or(0);
        all.push(Subject { label: label.clone(), name, bits, bytes, speed });
    }
    Ok(all)
}

/// The losses of the models that were trained.
fn training(cx: &ActionCx<'_>, fields: &Fields) -> Vec<Training> {
    let mut all = Vec::new();
    for (subject, label) in fields.compare.iter().enumerate() {
        let Ok(text) = fs::read_text(&cx.input(label).join("training.json")) else { continue };
        let curves: Value = serde_json::from_str(&text).unwrap_or_default();
        let points = |name: &str| -> Vec<(f64, f64)> {
            let points = curves[name].as_array().into_iter().flatten();
            points.filter_map(|p| Some((p[0].as_f64()?, p[1].as_f64()?))).collect()
        };
        let (train, validation) = (points("train"), points("validation"));
        if !train.is_empty() || !validation.is_empty() {
            all.push(Training { subject, train, validation });
        }
    }
    all
}

fn zero_shots(cx: &mut ActionCx<'_>, fields: &Fields, left_out: &mut Vec<String>) -> Result<Vec<ZeroShot>, Failure> {
    let mut all = Vec::new();
    for zero in &fields.zero_shot {
        let data = Dataset::open(cx.input(&zero.on))?;
        if let Some(reason) = data.left_out() {
            left_out.push(format!("zero-shot by {} ({reason})", zero.column));
            continue;
        }
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
            let hits: Vec<f64> = chosen
                .iter()
                .map(|r| {
                    let scores =
                        products(&[images.row(r * views)], &means.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    let best = (0..classes.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap_or(0);
                    f64::from(u8::from(classes[best] == class(*r)))
                })
                .collect();
            lines.push(ZeroShotRow {
                subject: subject.clone(),
                accuracy: mean(&hits, fields.seed),
                classes: by_class(chosen.iter().map(|r| class(*r)).zip(hits.iter().copied())),
                difference: reference.as_ref().map(|first| paired(&hits, first, fields.seed)),
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
    let mut sum = vec![0.0f32; texts.width];
    for prompt in prompts {
        let row = texts.row(index[&prompt.replace("{}", &class.to_lowercase())]);
        sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
    }
    let norm = sum.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    sum.iter().map(|v| v / norm).collect()
}

fn write(cx: &ActionCx<'_>, numbers: &Numbers, plots: &[Figure], examples: &Examples) -> Result<(), Failure> {
    let out = cx.out();
    fs::write(&out.join("report.json"), serde_json::to_string_pretty(numbers).expect("plain data").as_bytes())?;
    fs::write(&out.join("report.csv"), tables::csv(numbers).as_bytes())?;
    fs::write(&out.join("report.md"), tables::markdown(numbers).as_bytes())?;
    fs::write(&out.join("report.html"), page::html(numbers, plots, examples)?.as_bytes())?;
    for (name, svg) in plots {
        fs::write(&out.join(format!("plots/{name}.svg")), svg.as_bytes())?;
        fs::write(&out.join(format!("plots/{name}.png")), &plot::png(svg)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_cut_by_characters() {
        assert_eq!(cut("caf\u{e9}", 4), "caf\u{e9}");
        assert_eq!(cut("caf\u{e9}s", 4), "caf\u{2026}");
    }

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
