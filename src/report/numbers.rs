//! What a report holds: `report.json`, typed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::report::retrieval::{Difference, Estimate, hits, median_rank, paired, recall};

/// All of a report.
#[derive(Debug, Serialize)]
pub struct Numbers {
    /// Of this format. 1: first. 2: differences, the headline, what quantization costs, accuracy by class.
    pub version: u32,
    /// The target.
    pub label: String,
    /// What was found, in words.
    pub headline: Vec<String>,
    /// Where speed was measured.
    pub machine: String,
    /// Of samples and intervals.
    pub seed: u64,
    /// The models, the first of which is the reference.
    pub subjects: Vec<Subject>,
    /// The galleries.
    pub tests: Vec<Test>,
    /// The classifications.
    pub zero_shot: Vec<ZeroShot>,
    /// What the quantized models cost and save.
    pub quantized: Vec<Quantized>,
    /// What is not in the report, and why.
    pub left_out: Vec<String>,
}

/// A model.
#[derive(Debug, Serialize)]
pub struct Subject {
    /// Its label.
    pub label: String,
    /// Its label, as short as it can be among the others.
    pub name: String,
    /// Bits a weight where it is quantized.
    pub bits: Option<u64>,
    /// On disk.
    pub bytes: u64,
    /// `speed.json`.
    pub speed: Value,
}

impl Subject {
    /// A number of its speed, 0 where it is missing.
    pub fn speed(&self, key: &str) -> f64 {
        self.speed[key].as_f64().unwrap_or(0.0)
    }

    /// Millions of bytes on disk.
    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }
}

/// A gallery, and how each model does on it.
#[derive(Debug, Serialize)]
pub struct Test {
    /// Its name.
    pub name: String,
    /// Pictures, and captions.
    pub n: usize,
    /// R@10 of a coin.
    pub chance: f64,
    /// One a model.
    pub rows: Vec<Row>,
}

/// One direction of retrieval: `recall@1`, `recall@5`, `recall@10` and `median-rank`.
pub type Metrics = BTreeMap<&'static str, Estimate>;

/// A model on a gallery.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The model.
    pub subject: String,
    /// Text to picture.
    pub t2i: Metrics,
    /// Picture to text.
    pub i2t: Metrics,
    /// From the first model, text to picture: `recall@1` and `recall@10`.
    pub difference: Option<BTreeMap<&'static str, Difference>>,
}

impl Row {
    /// The difference from the first model, where there is one.
    pub fn difference(&self, metric: &str) -> Option<Difference> {
        self.difference.as_ref().and_then(|d| d.get(metric)).copied()
    }
}

/// A classification by names, and how each model does on it.
#[derive(Debug, Serialize)]
pub struct ZeroShot {
    /// The column of the classes.
    pub column: String,
    /// Pictures.
    pub n: usize,
    /// 1 / classes.
    pub chance: f64,
    /// The share of the largest class: what always naming it would reach.
    pub majority: f64,
    /// The classes.
    pub classes: Vec<Class>,
    /// The texts, with {} for a class.
    pub prompts: Vec<String>,
    /// One a model.
    pub rows: Vec<ZeroShotRow>,
}

/// A class.
#[derive(Debug, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Pictures of it.
    pub n: usize,
}

/// A model on a classification.
#[derive(Debug, Serialize)]
pub struct ZeroShotRow {
    /// The model.
    pub subject: String,
    /// The share of pictures given their class.
    pub accuracy: Estimate,
    /// The same for the pictures of each class; nothing for a class without pictures.
    pub classes: BTreeMap<String, f64>,
    /// From the first model.
    pub difference: Option<Difference>,
}

/// What a quantized model costs and saves.
#[derive(Debug, Serialize)]
pub struct Quantized {
    /// The model.
    pub subject: String,
    /// Bits a weight.
    pub bits: u64,
    /// The last model before it that is not quantized.
    pub against: String,
    /// Bytes on disk it has less.
    pub saved_bytes: i64,
    /// R@10, text to picture, from `against`, one a test.
    pub differences: Vec<Difference>,
}

/// The metrics of a model's ranks.
pub fn metrics(ranks: &[usize], seed: u64) -> Metrics {
    BTreeMap::from([
        ("recall@1", recall(ranks, 1, seed)),
        ("recall@5", recall(ranks, 5, seed)),
        ("recall@10", recall(ranks, 10, seed)),
        ("median-rank", median_rank(ranks, seed)),
    ])
}

/// How far ranks are from the first model's, on the same queries.
pub fn differences(ranks: &[usize], reference: &[usize], seed: u64) -> BTreeMap<&'static str, Difference> {
    [("recall@1", 1), ("recall@10", 10)]
        .map(|(name, k)| (name, paired(&hits(ranks, k), &hits(reference, k), seed)))
        .into()
}

/// The classes' accuracies: of each (class, right) the share that is right.
pub fn by_class<'a>(answers: impl Iterator<Item = (&'a str, f64)>) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (class, right) in answers {
        let (sum, n) = sums.entry(class).or_default();
        *sum += right;
        *n += 1.0;
    }
    sums.into_iter().map(|(class, (sum, n))| (class.to_owned(), sum / n)).collect()
}

/// What each quantized model costs and saves against the last one before it that is not quantized. `ranks` are
/// by test, then by model.
pub fn quantized(subjects: &[Subject], ranks: &[Vec<Vec<usize>>], seed: u64) -> Vec<Quantized> {
    let mut all = Vec::new();
    for (i, subject) in subjects.iter().enumerate() {
        let Some(bits) = subject.bits else { continue };
        let Some(j) = (0..i).rev().find(|j| subjects[*j].bits.is_none()) else { continue };
        let hits_of = |test: &[Vec<usize>], model: usize| hits(&test[model], 10);
        all.push(Quantized {
            subject: subject.label.clone(),
            bits,
            against: subjects[j].label.clone(),
            saved_bytes: subjects[j].bytes as i64 - subject.bytes as i64,
            differences: ranks.iter().map(|t| paired(&hits_of(t, i), &hits_of(t, j), seed)).collect(),
        });
    }
    all
}

/// Labels without the folders they do not need to be told apart.
pub fn short_names(labels: &[String]) -> Vec<String> {
    let last = |label: &str| label.rsplit('/').next().unwrap_or(label).to_owned();
    let names: Vec<String> = labels.iter().map(|l| last(l)).collect();
    let apart = names.iter().collect::<BTreeSet<_>>().len() == names.len();
    if apart { names } else { labels.to_vec() }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// Two models and a quantized one on one test, the quantized one clearly worse.
    pub(crate) fn sample() -> Numbers {
        let labels = ["models/a", "adapters/b", "models/b-q4"].map(str::to_owned);
        let ranks: Vec<Vec<usize>> = [30, 32, 80]
            .iter()
            .map(|bad| (0..100).map(|q| if (q * 37) % 100 < *bad { 50 } else { 1 + q % 3 }).collect())
            .collect();
        let subjects: Vec<Subject> = short_names(&labels)
            .into_iter()
            .enumerate()
            .map(|(i, name)| Subject {
                label: labels[i].clone(),
                name,
                bits: (i == 2).then_some(4),
                bytes: [120_000_000, 130_000_000, 20_000_000][i],
                speed: json!({"pictures_per_s": 100.0 + i as f64, "load_ms": 10.0, "machine": "a machine"}),
            })
            .collect();
        let rows = |i: usize| Row {
            subject: labels[i].clone(),
            t2i: metrics(&ranks[i], 7),
            i2t: metrics(&ranks[i], 7),
            difference: (i > 0).then(|| differences(&ranks[i], &ranks[0], 7)),
        };
        let accuracy = Estimate { value: 0.5, low: 0.4, high: 0.6 };
        let zero = ZeroShot {
            column: "category".into(),
            n: 4,
            chance: 0.5,
            majority: 0.75,
            classes: vec![Class { name: "<animals>".into(), n: 3 }, Class { name: "food".into(), n: 1 }],
            prompts: vec!["{}".into()],
            rows: labels
                .iter()
                .enumerate()
                .map(|(i, label)| ZeroShotRow {
                    subject: label.clone(),
                    accuracy,
                    classes: by_class([("<animals>", 1.0), ("<animals>", 0.0)].into_iter()),
                    difference: (i > 0).then_some(Difference { value: 0.0, low: 0.0, high: 0.0, stands_out: false }),
                })
                .collect(),
        };
        let quantized = quantized(&subjects, std::slice::from_ref(&ranks), 7);
        Numbers {
            version: 2,
            label: "reports/sample".into(),
            headline: vec![],
            machine: "a machine".into(),
            seed: 7,
            tests: vec![Test { name: "unseen".into(), n: 100, chance: 0.1, rows: (0..3).map(rows).collect() }],
            zero_shot: vec![zero],
            quantized,
            left_out: vec![],
            subjects,
        }
    }

    #[test]
    fn names_lose_their_folders_unless_they_then_collide() {
        let names = |l: &[&str]| short_names(&l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["models/a", "adapters/b"]), ["a", "b"]);
        assert_eq!(names(&["models/a", "adapters/a"]), ["models/a", "adapters/a"]);
    }

    #[test]
    fn accuracy_is_by_class() {
        let found = by_class([("cat", 1.0), ("dog", 0.0), ("cat", 0.0)].into_iter());
        assert_eq!(found, BTreeMap::from([("cat".to_owned(), 0.5), ("dog".to_owned(), 0.0)]));
    }

    #[test]
    fn a_quantized_model_is_held_against_the_one_before_it() {
        let numbers = sample();
        let [cost] = &numbers.quantized[..] else { panic!("one is quantized") };
        assert_eq!((cost.against.as_str(), cost.bits, cost.saved_bytes), ("adapters/b", 4, 110_000_000));
        assert!((cost.differences[0].value + 0.48).abs() < 1e-9 && cost.differences[0].sign() == -1);
    }
}
