//! Models of fewer bits held against the one they were made of: which is the nearest to it at which size, and which to
//! take within a limit.
//!
//! What ranks language models is the divergence of their predictions and not perplexity: rounding makes some right tokens
//! likelier and others less likely, which cancels in perplexity, so that a rounded model may even seem better than the
//! original. A divergence counts both. What ranks encoders is the cosine of their vectors to the original's.

pub mod figures;
pub mod page;
pub mod words;

use serde::Serialize;

use crate::measure::estimate::Estimate;
use crate::report::numbers::Subject;

/// What a model may take, and how far it may be from the original.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Limit {
    /// Bytes of its weights on disk, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The upper end of its divergence's interval is below this, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// The lower end of its cosine's interval is above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine: Option<f64>,
}

impl Limit {
    /// What the upper end of a distance's interval is to be below.
    fn distance(&self) -> Option<f64> {
        self.kl.or(self.cosine.map(|cosine| 1.0 - cosine))
    }
}

/// Which model to take within a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recommendation {
    /// The limit.
    #[serde(flatten)]
    pub limit: Limit,
    /// The model to take; none where nothing fits.
    pub take: Option<String>,
    /// Where nothing fits, what comes nearest to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// The models by their distance from the first, the original: the divergence of its predictions on the first texts, or one
/// minus the cosine to its vectors of what is encoded first.
#[derive(Debug, Serialize)]
pub struct Quantization {
    /// Their labels: the original, then the nearest to it first.
    pub order: Vec<String>,
    /// Labels of those that are nearer than every smaller one, the smallest first; the original is not among them.
    pub front: Vec<String>,
    /// One a limit.
    pub limits: Vec<Recommendation>,
    /// By model, how far it is.
    #[serde(skip)]
    pub distances: Vec<Estimate>,
}

/// A model as it is weighed.
#[derive(Clone, Copy, Debug)]
struct Weighed {
    bytes: u64,
    distance: Estimate,
}

impl Quantization {
    /// Of models whose distances are known; none where they are not.
    pub fn of(
        subjects: &[Subject],
        distances: impl Iterator<Item = Option<Estimate>>,
        limits: &[Limit],
    ) -> Option<Self> {
        let models: Vec<Weighed> = subjects
            .iter()
            .zip(distances)
            .map(|(subject, distance)| Some(Weighed { bytes: subject.bytes, distance: distance? }))
            .collect::<Option<_>>()?;
        let label = |i: usize| subjects[i].label.clone();
        let recommend = |limit: &Limit| {
            let found = take(&models, limit);
            let nearest = found.is_none().then(|| nearest(&models, limit)).flatten();
            Recommendation { limit: *limit, take: found.map(label), nearest: nearest.map(label) }
        };
        Some(Self {
            order: by_distance(&models).into_iter().map(label).collect(),
            front: front(&models).into_iter().map(label).collect(),
            limits: limits.iter().map(recommend).collect(),
            distances: models.iter().map(|model| model.distance).collect(),
        })
    }

    /// The models' places among `subjects`, in order.
    pub fn places(&self, subjects: &[Subject]) -> Vec<usize> {
        self.order.iter().filter_map(|label| subjects.iter().position(|s| s.label == *label)).collect()
    }

    /// Whether a limit takes this model.
    pub fn takes(&self, label: &str) -> bool {
        self.limits.iter().any(|r| r.take.as_deref() == Some(label))
    }
}

/// The original, then the nearest to it first; of two as near, the smaller.
fn by_distance(models: &[Weighed]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by(|a, b| (*a > 0).cmp(&(*b > 0)).then_with(|| nearer(models, *a, *b)));
    order
}

/// By distance, then by size, then by place.
fn nearer(models: &[Weighed], a: usize, b: usize) -> std::cmp::Ordering {
    let (one, other) = (&models[a], &models[b]);
    one.distance.value.total_cmp(&other.distance.value).then(one.bytes.cmp(&other.bytes)).then(a.cmp(&b))
}

/// By size, then by distance, then by place.
fn smaller(models: &[Weighed], a: usize, b: usize) -> std::cmp::Ordering {
    models[a].bytes.cmp(&models[b].bytes).then_with(|| nearer(models, a, b))
}

/// The Pareto front of size and distance without the original, the smallest first.
fn front(models: &[Weighed]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..models.len()).collect();
    order.sort_by(|a, b| smaller(models, *a, *b));
    nearer_and_nearer(order, &|i| models[i].distance.value)
}

/// Of models by what they cost, the cheapest first, those that are nearer than every one before; without the original, after
/// which none is.
pub fn nearer_and_nearer(mut order: Vec<usize>, distance: &dyn Fn(usize) -> f64) -> Vec<usize> {
    let mut nearest = f64::INFINITY;
    order.retain(|i| {
        let is_nearer = distance(*i) < nearest;
        nearest = nearest.min(distance(*i));
        is_nearer && *i > 0
    });
    order
}

/// The nearest to the original that is no larger than the limit, or the smallest whose distance is surely below it; under
/// both, the nearest of those that keep both. The original itself counts only where it has to fit a size.
fn take(models: &[Weighed], limit: &Limit) -> Option<usize> {
    let fits = |i: &usize| {
        let (size, distance) = (models[*i].bytes, models[*i].distance.high);
        limit.bytes.is_none_or(|most| size <= most) && limit.distance().is_none_or(|most| distance < most)
    };
    match limit.bytes {
        Some(_) => (0..models.len()).filter(fits).min_by(|a, b| nearer(models, *a, *b)),
        None => (1..models.len()).filter(fits).min_by(|a, b| smaller(models, *a, *b)),
    }
}

/// What comes nearest to a limit that nothing keeps: of those that are small enough, or of all where there is no limit of
/// size, the one whose distance is surely lowest; else the smallest.
fn nearest(models: &[Weighed], limit: &Limit) -> Option<usize> {
    let others = 1..models.len();
    let small = others.clone().filter(|i| limit.bytes.is_none_or(|most| models[*i].bytes <= most));
    small
        .min_by(|a, b| {
            models[*a].distance.high.total_cmp(&models[*b].distance.high).then_with(|| smaller(models, *a, *b))
        })
        .or_else(|| others.min_by(|a, b| smaller(models, *a, *b)))
}

/// A distance to three figures, always as a power of ten: "1.23 × 10⁻⁴".
pub fn distance_text(value: f64) -> String {
    match power_of(value) {
        None => "0".into(),
        Some(power) => format!("{:.2}\u{a0}\u{d7}\u{a0}10{}", value / 10f64.powi(power), superscript(power)),
    }
}

/// Its interval, by the power of ten of its value: "1.10–1.36 × 10⁻⁴".
pub fn interval_text(distance: Estimate) -> String {
    match power_of(distance.value) {
        None => String::new(),
        Some(power) => {
            let scale = 10f64.powi(power);
            format!(
                "{:.2}\u{2013}{:.2}\u{a0}\u{d7}\u{a0}10{}",
                distance.low / scale,
                distance.high / scale,
                superscript(power)
            )
        }
    }
}

/// The power of ten of a number that is written with three figures; none of 0.
fn power_of(value: f64) -> Option<i32> {
    format!("{value:.2e}").split_once('e')?.1.parse().ok().filter(|_| value > 0.0)
}

/// A power as it stands above the line.
fn superscript(power: i32) -> String {
    const DIGITS: [char; 10] = [
        '\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}',
        '\u{2079}',
    ];
    let above = |c: char| c.to_digit(10).map_or('\u{207b}', |digit| DIGITS[digit as usize]);
    power.to_string().chars().map(above).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::language::{Row, Texts, row};
    use crate::report::numbers::{Numbers, Of, VERSION, short_names};

    /// A model as it is rounded: its name, megabytes, divergence, perplexity, and tokens a second.
    type Made = (&'static str, f64, f64, f64, f64);

    /// As of a small language model and thirteen roundings of it.
    const MADE: [Made; 14] = [
        ("smollm2", 538.1, 0.0, 24.131, 14.2),
        ("smollm2-q8", 143.3, 8.1e-5, 24.134, 40.6),
        ("smollm2-q6", 109.6, 9.7e-4, 24.102, 21.3),
        ("smollm2-q4", 75.9, 2.84e-2, 24.913, 52.1),
        ("smollm2-q3", 59.0, 0.187, 29.42, 20.9),
        ("smollm2-q2", 42.2, 3.41, 812.4, 22.0),
        ("smollm2-q4-gptq", 75.9, 1.72e-2, 24.588, 52.3),
        ("smollm2-q3-gptq", 59.0, 8.9e-2, 26.71, 20.7),
        ("smollm2-Q8_0", 143.4, 7.8e-5, 24.129, 41.0),
        ("smollm2-Q6_K", 110.8, 8.8e-4, 24.141, 20.1),
        ("smollm2-Q5_0", 93.2, 3.1e-3, 24.202, 44.8),
        ("smollm2-Q4_K", 81.7, 1.33e-2, 24.407, 45.9),
        ("smollm2-Q4_1", 84.9, 1.9e-2, 24.633, 50.4),
        ("smollm2-Q4_0", 76.1, 3.3e-2, 25.06, 51.7),
    ];

    /// A report of them, with two limits that are kept and one that is not.
    pub(crate) fn sample() -> Numbers {
        let labels = MADE.map(|made| format!("models/{}", made.0));
        let spread =
            |value: f64, share: f64| Estimate { value, low: value * (1.0 - share), high: value * (1.0 + share) };
        let losses: Vec<(f64, usize)> = (0..40).map(|i| (3.0 + f64::from(i % 7) / 20.0, 20)).collect();
        let rows = MADE.iter().zip(&labels).enumerate().map(|(i, ((_, _, kl, perplexity, _), label))| Row {
            perplexity: spread(*perplexity, 0.03),
            accuracy: Some(spread(0.412 - 0.05 * kl.sqrt(), 0.02)),
            divergence: Some(spread(*kl, 0.07)),
            same_top: Some(spread(1.0 - 0.4 * kl.sqrt() / (1.0 + kl.sqrt()), 0.003)),
            ..row(label, &losses, (i > 0).then_some(&losses), 7)
        });
        let texts = Texts {
            on: "data/definitions".into(),
            split: "test".into(),
            records: 40,
            tokens: 800,
            cut: 0,
            rows: rows.collect(),
            examples: vec![],
            losses: vec![],
        };
        let subjects: Vec<Subject> = short_names(&labels)
            .into_iter()
            .enumerate()
            .map(|(i, name)| Subject {
                label: labels[i].clone(),
                name,
                bytes: (MADE[i].1 * 1e6) as u64,
                bits_per_weight: Some(32.0 * MADE[i].1 / MADE[0].1),
                speed: serde_json::json!({
                    "load_ms": 2.5 * MADE[i].1, "prompt_tokens_per_s": 180.0 + f64::from(i as u8), "prompt": 256, "generate": 64,
                    "generation_tokens_per_s": MADE[i].4, "peak_bytes": 2.2e6 * MADE[i].1, "rounds": 5,
                }),
                ..Subject::default()
            })
            .collect();
        let limit = |bytes, kl| Limit { bytes, kl, cosine: None };
        let limits = [limit(Some(80_000_000), None), limit(None, Some(0.01)), limit(Some(60_000_000), Some(0.05))];
        Numbers {
            version: VERSION,
            of: Of::Language,
            label: "reports/quantization-smollm2".into(),
            metrics: ["perplexity", "kl", "accuracy", "speed"].map(str::to_owned).into(),
            machine: "a machine".into(),
            seed: 7,
            quantization: Quantization::of(&subjects, texts.rows.iter().map(|row| row.divergence), &limits),
            subjects,
            texts: vec![texts],
            ..Numbers::default()
        }
    }

    /// Models of so many bytes and such a divergence; its interval is a tenth to each side.
    fn models(all: &[(u64, f64)]) -> Vec<Weighed> {
        let distance = |value: f64| Estimate { value, low: 0.9 * value, high: 1.1 * value };
        all.iter().map(|(bytes, value)| Weighed { bytes: *bytes, distance: distance(*value) }).collect()
    }

    const FEW: [(u64, f64); 6] = [(100, 0.0), (50, 0.001), (30, 0.02), (30, 0.01), (40, 0.015), (10, 2.0)];

    #[test]
    fn the_original_comes_first_and_then_the_nearest() {
        assert_eq!(by_distance(&models(&FEW)), [0, 1, 3, 4, 2, 5]);
        assert_eq!(by_distance(&models(&[(9, 0.0), (8, 0.0), (7, 0.0)])), [0, 2, 1], "the smaller of equals");
    }

    #[test]
    fn nothing_smaller_is_nearer_than_the_front() {
        assert_eq!(front(&models(&FEW)), [5, 3, 1], "without what is as large and farther, or larger and farther");
        assert_eq!(front(&models(&[(9, 0.0), (5, 0.1), (5, 0.1)])), [1], "one of two that are the same");
        assert!(front(&models(&FEW[..1])).is_empty());
        assert!(front(&models(&[(9, 0.0), (12, 0.1)])).is_empty(), "the original is smaller");
    }

    #[test]
    fn a_limit_of_size_takes_the_nearest_and_one_of_divergence_the_smallest() {
        let models = models(&FEW);
        let check = |bytes, kl, expected| {
            let limit = Limit { bytes, kl, cosine: None };
            assert_eq!(take(&models, &limit), expected, "{limit:?}");
            let cosine = kl.map(|kl: f64| 1.0 - kl);
            assert_eq!(take(&models, &Limit { bytes, kl: None, cosine }), expected, "{cosine:?}");
        };
        check(Some(45), None, Some(3));
        check(Some(30), None, Some(3));
        check(Some(29), None, Some(5));
        check(Some(100), None, Some(0));
        check(Some(9), None, None);
        check(None, Some(0.0221), Some(3));
        check(None, Some(0.0111), Some(3));
        // 0.01 itself is below it, and the end of its interval is not.
        check(None, Some(0.0109), Some(1));
        check(None, Some(0.0001), None);
        check(Some(45), Some(0.02), Some(3));
        check(Some(20), Some(0.02), None);
    }

    #[test]
    fn what_comes_nearest_is_small_enough_where_that_is_asked() {
        let models = models(&FEW);
        let check =
            |bytes, kl, expected| assert_eq!(nearest(&models, &Limit { bytes, kl, cosine: None }), Some(expected));
        check(Some(9), None, 5);
        check(None, Some(0.0001), 1);
        check(Some(45), Some(0.0001), 3);
        check(Some(9), Some(0.0001), 5);
        assert_eq!(nearest(&models[..1], &Limit { bytes: Some(9), ..Limit::default() }), None);
    }

    #[test]
    fn a_divergence_is_a_power_of_ten_with_three_figures() {
        // The spaces in it do not break.
        let texts = [0.0, 1.234e-4, 9.996e-3, 0.25, 3.0, 45.0].map(|kl| distance_text(kl).replace('\u{a0}', " "));
        let expected = ["0", "1.23 × 10⁻⁴", "1.00 × 10⁻²", "2.50 × 10⁻¹", "3.00 × 10⁰", "4.50 × 10¹"];
        assert_eq!(texts, expected);
        let kl = Estimate { value: 9.5e-3, low: 9.0e-3, high: 1.02e-2 };
        assert_eq!(interval_text(kl).replace('\u{a0}', " "), "9.00–10.20 × 10⁻³");
    }

    #[test]
    fn a_report_recommends_by_its_limits() {
        let found = sample().quantization.expect("divergences");
        let names = |i: usize| (found.limits[i].take.as_deref(), found.limits[i].nearest.as_deref());
        assert_eq!(names(0), (Some("models/smollm2-q4-gptq"), None));
        assert_eq!(names(1), (Some("models/smollm2-Q5_0"), None));
        assert_eq!(names(2), (None, Some("models/smollm2-q3-gptq")));
        assert_eq!(found.order[..3], ["models/smollm2", "models/smollm2-Q8_0", "models/smollm2-q8"]);
        assert!(found.takes("models/smollm2-Q5_0") && !found.takes("models/smollm2-q3-gptq"));
        let numbers = sample();
        let mut texts = numbers.texts.into_iter().next().expect("texts");
        texts.rows[3].divergence = None;
        assert!(Quantization::of(&numbers.subjects, texts.rows.iter().map(|row| row.divergence), &[]).is_none());
    }
}
