//! `report`: models side by side on pictures they did not see.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::features::{Vectors, read_images, read_texts};
use super::{ActionCx, Kind, Part};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::format::dataset::{Dataset, Row};
use crate::recipe::decl::Decl;
use crate::recipe::schema::{Default, Prop, Schema, Type};
use crate::report::retrieval::{Estimate, mean, median_rank, products, ranks, recall};
use crate::report::{page, plot};
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
    ]);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Fields {
    compare: Vec<String>,
    test: Vec<Test>,
    zero_shot: Vec<ZeroShot>,
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
struct ZeroShot {
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

    /// 1: first.
    fn version(&self) -> u32 {
        1
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

    fn run(&self, cx: &mut ActionCx<'_>) -> Result<(), Failure> {
        let fields: Fields = cx.decl.read();
        let mut left_out = Vec::new();
        let (mut tests, mut strips) = (Vec::new(), json!({"queries": []}));
        let mut heat = None;
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
                lines.push(json!({"subject": subject, "t2i": t2i, "i2t": i2t}));
                if i == 1.min(fields.compare.len() - 1) && strips["subject"].is_null() {
                    strips = json!({"subject": subject, "test": test.name, "queries": strip(&rows, &chosen, &scores, &forward)});
                    let m = n.min(24);
                    let names: Vec<String> =
                        chosen[..m].iter().map(|r| rows[*r].caption.chars().take(26).collect()).collect();
                    let cells = (0..m).flat_map(|q| scores[q * n..q * n + m].to_vec()).collect::<Vec<f32>>();
                    heat =
                        Some((format!("Similarity of captions (down) and pictures (across): {subject}"), names, cells));
                }
            }
            tests.push(json!({"name": test.name, "n": n, "chance": 10.0 / n as f64, "rows": lines}));
        }
        let zero_shot = zero_shots(cx, &fields, &mut left_out)?;
        let mut subjects = Vec::new();
        for (i, label) in fields.compare.iter().enumerate() {
            let speed: Value =
                serde_json::from_str(&fs::read_text(&cx.part(&format!("speed-{i}")).join("speed.json"))?)
                    .map_err(|e| Failure::target(format!("speed.json: {e}")))?;
            subjects.push(json!({"label": label, "bytes": speed["bytes"], "speed": speed}));
        }
        let report = json!({
            "version": 1, "label": cx.decl.label, "machine": subjects[0]["speed"]["machine"], "subjects": subjects,
            "tests": tests, "zero_shot": zero_shot, "left_out": left_out,
        });
        let mut plots = plots(cx, &fields, &report)?;
        if let Some((title, names, cells)) = heat {
            plots.push(("similarity".into(), plot::heat(&title, &names, &cells)));
        }
        write(cx, &report, &plots, &strips)
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

fn metrics(ranks: &[usize], seed: u64) -> BTreeMap<&'static str, Estimate> {
    BTreeMap::from([
        ("recall@1", recall(ranks, 1, seed)),
        ("recall@5", recall(ranks, 5, seed)),
        ("recall@10", recall(ranks, 10, seed)),
        ("median-rank", median_rank(ranks, seed)),
    ])
}

/// Four queries answered well and four not, evenly over the gallery, with the pictures found.
fn strip(rows: &[Row], chosen: &[usize], scores: &[f32], ranks: &[usize]) -> Value {
    let n = chosen.len();
    let pick = |wanted: &dyn Fn(usize) -> bool| -> Vec<usize> {
        let all: Vec<usize> = (0..n).filter(|q| wanted(ranks[*q])).collect();
        all.iter().step_by((all.len() / 4).max(1)).take(4).copied().collect()
    };
    let queries = [pick(&|r| r == 1), pick(&|r| r > 5)].concat();
    let strips: Vec<Value> = queries
        .into_iter()
        .map(|q| {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| scores[q * n + b].total_cmp(&scores[q * n + a]).then(a.cmp(b)));
            let found: Vec<Value> = order[..5.min(n)]
                .iter()
                .map(|g| {
                    let row = &rows[chosen[*g]];
                    let bytes = row.image.as_deref().unwrap_or_default();
                    let mime = if bytes.starts_with(b"RIFF") { "image/webp" } else { "image/png" };
                    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
                    json!({"caption": row.caption, "right": *g == q, "mime": mime, "data": data})
                })
                .collect();
            json!({"query": rows[chosen[q]].caption, "found": found})
        })
        .collect();
    json!(strips)
}

fn zero_shots(cx: &mut ActionCx<'_>, fields: &Fields, left_out: &mut Vec<String>) -> Result<Vec<Value>, Failure> {
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
            lines.push(json!({"subject": subject, "accuracy": mean(&hits, fields.seed)}));
        }
        let chance = 1.0 / classes.len().max(1) as f64;
        all.push(json!({"column": zero.column, "n": chosen.len(), "classes": classes.len(), "chance": chance, "prompts": zero.prompt, "rows": lines}));
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

fn plots(cx: &ActionCx<'_>, fields: &Fields, report: &Value) -> Result<Vec<(String, String)>, Failure> {
    let estimate = |e: &Value| Estimate {
        value: e["value"].as_f64().unwrap_or(0.0),
        low: e["low"].as_f64().unwrap_or(0.0),
        high: e["high"].as_f64().unwrap_or(0.0),
    };
    let tests = report["tests"].as_array().cloned().unwrap_or_default();
    let groups: Vec<(String, f64, Vec<(String, Estimate)>)> = tests
        .iter()
        .map(|t| {
            let rows = t["rows"].as_array().into_iter().flatten();
            let points = rows
                .map(|r| (r["subject"].as_str().unwrap_or("").to_owned(), estimate(&r["t2i"]["recall@10"])))
                .collect();
            (t["name"].as_str().unwrap_or("").to_owned(), t["chance"].as_f64().unwrap_or(0.0), points)
        })
        .collect();
    let mut all = vec![("recall".to_owned(), plot::dots("Recall@10, text to picture", &groups))];
    if let Some((name, _, points)) = groups.first() {
        let sizes: Vec<(String, f64, f64)> = points
            .iter()
            .enumerate()
            .map(|(i, (label, e))| {
                (label.clone(), report["subjects"][i]["bytes"].as_f64().unwrap_or(0.0) / 1e6, e.value)
            })
            .collect();
        all.push(("size".into(), plot::scatter(&format!("Size against recall: {name}"), "MB on disk", "R@10", &sizes)));
    }
    let mut series = Vec::new();
    for label in &fields.compare {
        let Ok(text) = fs::read_text(&cx.input(label).join("training.json")) else { continue };
        let curves: Value = serde_json::from_str(&text).unwrap_or_default();
        for name in ["train", "validation"] {
            let points: Vec<(f64, f64)> = curves[name]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|p| Some((p[0].as_f64()?, p[1].as_f64()?)))
                .collect();
            if !points.is_empty() {
                series.push((format!("{} {name}", label.rsplit('/').next().unwrap_or(label)), points));
            }
        }
    }
    if !series.is_empty() {
        all.push(("training".into(), plot::lines("Training", "step", "loss", &series)));
    }
    Ok(all)
}

fn write(cx: &ActionCx<'_>, report: &Value, plots: &[(String, String)], strips: &Value) -> Result<(), Failure> {
    let out = cx.out();
    fs::write(&out.join("report.json"), serde_json::to_string_pretty(report).expect("plain data").as_bytes())?;
    let mut csv = String::from("subject,test,direction,metric,value,low,high,n\n");
    let mut md = format!("# {}\n", report["label"].as_str().unwrap_or(""));
    for test in report["tests"].as_array().into_iter().flatten() {
        md.push_str(&format!(
            "\n## {} (n = {})\n\n| model | R@1 | R@5 | R@10 | median rank |\n|---|---|---|---|---|\n",
            test["name"].as_str().unwrap_or(""),
            test["n"]
        ));
        for row in test["rows"].as_array().into_iter().flatten() {
            for direction in ["t2i", "i2t"] {
                for (metric, e) in row[direction].as_object().into_iter().flatten() {
                    csv.push_str(&format!(
                        "{},{},{direction},{metric},{},{},{},{}\n",
                        row["subject"].as_str().unwrap_or(""),
                        quote(test["name"].as_str().unwrap_or("")),
                        e["value"],
                        e["low"],
                        e["high"],
                        test["n"]
                    ));
                }
            }
            let cell = |m: &str| format!("{:.3}", row["t2i"][m]["value"].as_f64().unwrap_or(0.0));
            md.push_str(&format!(
                "| {} | {} | {} | {} | {} |\n",
                row["subject"].as_str().unwrap_or(""),
                cell("recall@1"),
                cell("recall@5"),
                cell("recall@10"),
                row["t2i"]["median-rank"]["value"]
            ));
        }
    }
    for reason in report["left_out"].as_array().into_iter().flatten() {
        md.push_str(&format!("\nLeft out: {}\n", reason.as_str().unwrap_or("")));
    }
    fs::write(&out.join("report.csv"), csv.as_bytes())?;
    fs::write(&out.join("report.md"), md.as_bytes())?;
    fs::write(&out.join("report.html"), page::html(report, plots, strips)?.as_bytes())?;
    for (name, svg) in plots {
        fs::write(&out.join(format!("plots/{name}.svg")), svg.as_bytes())?;
        fs::write(&out.join(format!("plots/{name}.png")), &plot::png(svg)?)?;
    }
    Ok(())
}

fn quote(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
