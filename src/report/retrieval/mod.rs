//! Retrieval and zero-shot classification by picture-text models: the numbers, and how they are estimated. Definitions:
//! `docs/metrics.md`.

pub mod figures;
pub mod page;
pub mod tables;
pub mod words;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::measure::estimate::{Difference, Estimate, bootstrap, mean, paired};
use crate::report::numbers::Subject;

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
    /// By model, each caption's rank of its picture, for the plot.
    #[serde(skip)]
    pub ranks: Vec<Vec<usize>>,
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
    /// Of each class how many pictures were given each class, row by row, for the plot; of the first model, where they are few.
    #[serde(skip)]
    pub named: Vec<u32>,
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

/// The rank of the best right answer for each query, 1 the first. Ties count against the model.
///
/// `scores` [queries, gallery]; `right` says which gallery entries answer a query.
pub fn ranks(scores: &[f32], gallery: usize, right: &dyn Fn(usize, usize) -> bool) -> Vec<usize> {
    scores
        .chunks(gallery)
        .enumerate()
        .map(|(query, row)| {
            let best = (0..gallery).filter(|g| right(query, *g)).map(|g| row[g]).fold(f32::NEG_INFINITY, f32::max);
            1 + (0..gallery).filter(|g| !right(query, *g) && row[*g] >= best).count()
        })
        .collect()
}

/// The share of queries whose right answer is among the first k.
pub fn recall(ranks: &[usize], k: usize, seed: u64) -> Estimate {
    mean(&hits(ranks, k), seed)
}

/// 1 for each query whose right answer is among the first k, else 0.
pub fn hits(ranks: &[usize], k: usize) -> Vec<f64> {
    ranks.iter().map(|r| f64::from(u8::from(*r <= k))).collect()
}

/// The share of queries on which two models both have the right answer among the first k, or both have not.
pub fn agreement(ranks: &[usize], other: &[usize], k: usize) -> f64 {
    let same = ranks.iter().zip(other).filter(|(a, b)| (**a <= k) == (**b <= k)).count();
    same as f64 / ranks.len().max(1) as f64
}

/// The median rank.
pub fn median_rank(ranks: &[usize], seed: u64) -> Estimate {
    let values: Vec<f64> = ranks.iter().map(|r| *r as f64).collect();
    bootstrap(&values, seed, &|v| {
        v.sort_by(f64::total_cmp);
        let n = v.len();
        if n % 2 == 1 { v[n / 2] } else { (v[n / 2 - 1] + v[n / 2]) / 2.0 }
    })
}

/// All inner products: queries [n, d] with gallery [m, d] -> [n, m].
pub fn products(queries: &[&[f32]], gallery: &[&[f32]]) -> Vec<f32> {
    queries.iter().flat_map(|q| gallery.iter().map(|g| q.iter().zip(*g).map(|(a, b)| a * b).sum())).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::numbers::{Numbers, VERSION, short_names};

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
                ..Subject::default()
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
                    named: vec![2, 1, 0, 1],
                })
                .collect(),
        };
        let quantized = quantized(&subjects, std::slice::from_ref(&ranks), 7);
        Numbers {
            version: VERSION,
            label: "reports/sample".into(),
            headline: vec![],
            machine: "a machine".into(),
            seed: 7,
            tests: vec![Test { name: "unseen".into(), n: 100, chance: 0.1, rows: (0..3).map(rows).collect(), ranks }],
            zero_shot: vec![zero],
            quantized,
            subjects,
            ..Numbers::default()
        }
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

    #[test]
    fn models_agree_where_both_find_it_or_neither() {
        assert_eq!(agreement(&[1, 10, 11, 40], &[3, 11, 90, 1], 10), 0.5);
        assert_eq!(agreement(&[1, 50], &[1, 50], 10), 1.0);
    }

    #[test]
    fn ranks_count_ties_against_the_model() {
        let scores = [0.9, 0.1, 0.9, 0.2, 0.3, 0.1];
        assert_eq!(ranks(&scores, 3, &|q, g| q == g), [2, 1]);
        assert_eq!(ranks(&scores, 3, &|q, g| q == g || g == 2), [1, 1]);
    }

    #[test]
    fn an_interval_holds_its_value() {
        let ranks: Vec<usize> = (0..200).map(|i| if i % 4 == 0 { 1 } else { 9 }).collect();
        let r = recall(&ranks, 1, 7);
        assert!((r.value - 0.25).abs() < 1e-12 && r.low < 0.25 && r.high > 0.25 && r.high - r.low < 0.13, "{r:?}");
        assert_eq!(median_rank(&ranks, 7).value, 9.0);
    }
}
