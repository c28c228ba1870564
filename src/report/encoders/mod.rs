//! Models by the vectors that they give of texts and pictures, held against the first one's. Definitions: `docs/metrics.md`.

pub mod figures;
pub mod page;
pub mod tables;
pub mod words;

use serde::Serialize;

use crate::measure::estimate::{Estimate, mean};
use crate::report::retrieval::products;

/// What is encoded, and how near each model's vectors are to the first one's.
#[derive(Debug, Serialize)]
pub struct Encoded {
    /// The dataset.
    pub on: String,
    /// Its split.
    pub split: String,
    /// Different texts among its captions; 0 of models that do not read.
    pub texts: usize,
    /// Its pictures; 0 of models that do not see.
    pub pictures: usize,
    /// One a model.
    pub rows: Vec<Row>,
}

/// A model's vectors against the first model's.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The model.
    pub subject: String,
    /// One minus the cosine, the mean over texts and pictures.
    pub distance: Estimate,
    /// The lowest cosine.
    pub least: f64,
    /// The share of texts and pictures whose nearest other one is the same as by the first model.
    pub same_nearest: Estimate,
}

/// Vectors of one width, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Of each.
    pub width: usize,
    /// All numbers.
    pub values: &'a [f32],
}

impl<'a> Rows<'a> {
    /// Each vector.
    fn all(&self) -> Vec<&'a [f32]> {
        self.values.chunks(self.width.max(1)).collect()
    }

    /// For each vector, which other one is the nearest by cosine; the first of several as near.
    fn nearest(&self) -> Vec<usize> {
        let unit: Vec<f32> = self.all().iter().flat_map(|row| of_length_one(row)).collect();
        let unit: Vec<&[f32]> = unit.chunks(self.width.max(1)).collect();
        let n = unit.len();
        let mut nearest = Vec::with_capacity(n);
        // A square of a large dataset would not fit: some rows at a time.
        for (at, some) in unit.chunks(ROWS_AT_ONCE).enumerate() {
            let scores = products(some, &unit);
            nearest.extend(scores.chunks(n).enumerate().map(|(i, scores)| {
                let own = at * ROWS_AT_ONCE + i;
                let others = (0..n).filter(|other| *other != own);
                others
                    .fold(None, |best: Option<usize>, i| best.filter(|best| scores[*best] >= scores[i]).or(Some(i)))
                    .unwrap_or(own)
            }));
        }
        nearest
    }
}

/// Rows whose products with all others are held at once.
const ROWS_AT_ONCE: usize = 256;

fn of_length_one(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt().max(1e-30);
    row.iter().map(|v| (f64::from(*v) / length) as f32).collect()
}

/// One minus the cosine of two vectors, from their difference on the unit sphere, since near vectors' product loses all
/// digits: 1 - cos = |a/|a| - b/|b||^2 / 2.
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-30);
    let (one, other) = (length(a), length(b));
    a.iter().zip(b).map(|(x, y)| (f64::from(*x) / one - f64::from(*y) / other).powi(2)).sum::<f64>() / 2.0
}

/// A model's vectors of several sorts of rows, texts and pictures, against the first model's of the same rows.
pub fn row(subject: &str, own: &[Rows<'_>], first: &[Rows<'_>], seed: u64) -> Row {
    let (mut distances, mut same) = (Vec::new(), Vec::new());
    for (own, first) in own.iter().zip(first) {
        distances.extend(own.all().iter().zip(first.all()).map(|(a, b)| distance(a, b)));
        same.extend(own.nearest().iter().zip(first.nearest()).map(|(a, b)| f64::from(u8::from(*a == b))));
    }
    let least = 1.0 - distances.iter().copied().fold(0.0, f64::max);
    Row { subject: subject.to_owned(), distance: mean(&distances, seed), least, same_nearest: mean(&same, seed) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::numbers::{COSINE, Numbers, Of, SPEED, Subject, VERSION, short_names};
    use crate::report::quantization::{Limit, Quantization};

    /// Forty vectors of eight numbers, moved by so much.
    fn vectors(by: f32) -> Vec<f32> {
        (0..320).map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0) + by * ((i * 61 % 97) as f32 / 48.0 - 1.0)).collect()
    }

    /// An encoder and roundings of it.
    pub(crate) fn sample() -> Numbers {
        let labels = ["models/e", "models/e-8", "models/e-4", "models/e-int8"].map(str::to_owned);
        let made = [(90.0, 0.0), (24.0, 0.02), (13.5, 0.3), (22.9, 0.06)];
        let all: Vec<Vec<f32>> = made.iter().map(|(_, by)| vectors(*by)).collect();
        let of = |i: usize| [Rows { width: 8, values: &all[i] }];
        let rows: Vec<Row> = (0..4).map(|i| row(&labels[i], &of(i), &of(0), 7)).collect();
        let subjects: Vec<Subject> = short_names(&labels)
            .into_iter()
            .enumerate()
            .map(|(i, name)| Subject {
                label: labels[i].clone(),
                name,
                bytes: (made[i].0 * 1e6) as u64,
                bits_per_weight: Some(32.0 * made[i].0 / made[0].0),
                speed: serde_json::json!({
                    "load_ms": 40.0, "texts_per_s": 900.0 + 100.0 * i as f64, "text_p50_ms": 2.5, "rounds": 30, "batch": 16,
                    "peak_bytes": 150e6,
                }),
                ..Subject::default()
            })
            .collect();
        let limits =
            [Limit { bytes: Some(20_000_000), ..Limit::default() }, Limit { cosine: Some(0.99), ..Limit::default() }];
        Numbers {
            version: VERSION,
            of: Of::Encoders,
            label: "reports/encoders".into(),
            metrics: vec![COSINE.into(), SPEED.into()],
            machine: "a machine".into(),
            seed: 7,
            quantization: Quantization::of(&subjects, rows.iter().map(|row| Some(row.distance)), &limits),
            subjects,
            encoded: vec![Encoded { on: "data/words".into(), split: "test".into(), texts: 40, pictures: 0, rows }],
            ..Numbers::default()
        }
    }

    #[test]
    fn near_vectors_keep_their_distance() {
        assert_eq!(distance(&[1.0, 2.0], &[2.0, 4.0]), 0.0);
        assert!((distance(&[1.0, 0.0], &[0.0, 3.0]) - 1.0).abs() < 1e-12);
        assert!((distance(&[1.0, 0.0], &[-2.0, 0.0]) - 2.0).abs() < 1e-12);
        // 1 - cos of a small angle is half its square.
        let angle = 1e-4f32;
        assert!((distance(&[1.0, 0.0], &[1.0, angle]) / 5e-9 - 1.0).abs() < 1e-3);
    }

    #[test]
    fn the_nearest_is_another_row_and_length_does_not_count() {
        let rows = Rows { width: 2, values: &[1.0, 0.0, 0.0, 1.0, 9.0, 1.0, 1.0, 9.0] };
        assert_eq!(rows.nearest(), [2, 3, 0, 1]);
        let same = Rows { width: 2, values: &[1.0, 0.0, 1.0, 0.0, 1.0, 0.0] };
        assert_eq!(same.nearest(), [1, 0, 0], "the first of several");
        let many: Vec<f32> = (0..600).flat_map(|i| [(i as f32 / 100.0).cos(), (i as f32 / 100.0).sin()]).collect();
        let nearest = Rows { width: 2, values: &many }.nearest();
        assert!((1..599).all(|i| nearest[i].abs_diff(i) == 1), "{nearest:?}");
    }

    #[test]
    fn what_is_moved_more_is_farther() {
        let numbers = sample();
        let rows = &numbers.encoded[0].rows;
        assert_eq!((rows[0].distance.value, rows[0].least, rows[0].same_nearest.value), (0.0, 1.0, 1.0));
        for pair in [[0, 1], [1, 3], [3, 2]] {
            let [a, b] = pair.map(|i| &rows[i]);
            assert!(a.distance.value < b.distance.value && a.least > b.least, "{a:?} {b:?}");
            assert!(b.least <= 1.0 - b.distance.value && b.distance.low < b.distance.high, "{b:?}");
        }
        assert!(rows[2].same_nearest.value < 1.0, "{rows:?}");
        assert_eq!(
            numbers.quantization.expect("ranked").order,
            ["models/e", "models/e-8", "models/e-int8", "models/e-4"]
        );
    }
}
