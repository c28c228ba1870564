//! How well language models foresee texts, and what they answer. Definitions: `docs/metrics.md`.

pub mod figures;
pub mod page;
pub mod tables;
pub mod words;

use serde::Serialize;

use crate::measure::estimate::{Difference, Estimate, bootstrap};
use crate::measure::hardware::{Hardware, What};
use crate::report::numbers::Subject;

/// A record's mean loss in nats a token, and how many tokens that is of. Likewise its divergence, or the share of its tokens
/// that were foreseen.
pub type Loss = (f64, usize);

/// Texts, and how well each model foresees them.
#[derive(Debug, Serialize)]
pub struct Texts {
    /// The dataset.
    pub on: String,
    /// Its split.
    pub split: String,
    /// Records with a token that counts.
    pub records: usize,
    /// Tokens that count.
    pub tokens: usize,
    /// Records longer than `max-length`: their ends are not in the numbers.
    pub cut: usize,
    /// One a model.
    pub rows: Vec<Row>,
    /// Those whose loss changed most.
    pub examples: Vec<Example>,
    /// By model, each record's loss in nats a token, for the plots.
    #[serde(skip)]
    pub losses: Vec<Vec<f64>>,
}

/// A model on texts.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The model.
    pub subject: String,
    /// e to the loss.
    pub perplexity: Estimate,
    /// The mean over tokens, in nats.
    pub loss: Estimate,
    /// In loss, from the first model.
    pub difference: Option<Difference>,
    /// Its perplexity divided by the first model's: e to the difference.
    pub ratio: Option<Estimate>,
    /// Records with a lower loss than the first model's.
    pub better: Option<usize>,
    /// The share of tokens that were the most likely, where that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Estimate>,
    /// The Kullback-Leibler divergence from the first model's predictions, the mean over tokens, in nats, where that is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Estimate>,
    /// The share of tokens whose most likely one is the first model's, where the divergence is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_top: Option<Estimate>,
}

/// A record, and how well each model foresees it.
#[derive(Debug, Serialize)]
pub struct Example {
    /// What was given.
    pub prompt: String,
    /// What had to be foreseen.
    pub completion: String,
    /// How many tokens of it count.
    pub tokens: usize,
    /// One a model, in nats a token.
    pub losses: Vec<f64>,
}

/// A question, and what each model answers.
#[derive(Debug, Serialize)]
pub struct Answers {
    /// The question.
    pub prompt: String,
    /// One a model.
    pub answers: Vec<Answer>,
}

/// What a model answers.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct Answer {
    /// The text.
    #[serde(alias = "answer")]
    pub text: String,
    /// It was longer than `max-tokens`.
    pub cut: bool,
}

/// The mean over all tokens.
pub fn mean_loss(losses: &[Loss]) -> f64 {
    let tokens: usize = losses.iter().map(|(_, n)| n).sum();
    losses.iter().map(|(loss, n)| loss * *n as f64).sum::<f64>() / tokens.max(1) as f64
}

/// The mean over all tokens, with an interval over the records.
pub fn by_tokens(records: &[Loss], seed: u64) -> Estimate {
    bootstrap(records, seed, &|drawn| mean_loss(drawn))
}

/// A model's perplexity, held against the first model's on the same records. The logarithm of a ratio of perplexities is
/// the difference of losses, so one paired bootstrap over the records gives both.
pub fn row(subject: &str, losses: &[Loss], reference: Option<&[Loss]>, seed: u64) -> Row {
    let loss = by_tokens(losses, seed);
    let difference = reference.map(|reference| {
        assert_eq!(losses.len(), reference.len(), "the same records");
        let apart: Vec<Loss> = losses.iter().zip(reference).map(|(a, b)| (a.0 - b.0, a.1)).collect();
        Difference::of(by_tokens(&apart, seed))
    });
    Row {
        subject: subject.to_owned(),
        perplexity: loss.exp(),
        loss,
        difference,
        ratio: difference.map(|d| Estimate { value: d.value, low: d.low, high: d.high }.exp()),
        better: reference.map(|reference| losses.iter().zip(reference).filter(|(a, b)| a.0 < b.0).count()),
        accuracy: None,
        divergence: None,
        same_top: None,
    }
}

/// The records whose loss fell most and those where it fell least or rose, in that order, `each` of them at most.
/// `losses` and `reference` are in nats a token, by record.
pub fn changed_most(losses: &[f64], reference: &[f64], each: usize) -> Vec<usize> {
    let apart = |i: usize| losses[i] - reference[i];
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|a, b| apart(*a).total_cmp(&apart(*b)).then(a.cmp(b)));
    if order.len() > 2 * each {
        order.drain(each..order.len() - each);
    }
    order
}

/// What a speed is held against, and what share of it is reached; none where it was not measured.
///
/// Reading a prompt is products of matrices: of the rate of those in 32-bit floats. Models in codes may be above it.
pub(super) fn prompt_share(hardware: &Hardware, subject: &Subject) -> Option<(&'static str, f64)> {
    let operations = 2.0 * subject.speed["weights_a_prompt_token"].as_f64()?;
    Some(("f32 rate", subject.speed("prompt_tokens_per_s") * operations / hardware.best(What::F32)?))
}

/// Each generated token reads all weights once: of the memory's bandwidth.
pub(super) fn generation_share(hardware: &Hardware, subject: &Subject) -> Option<(&'static str, f64)> {
    let bytes = subject.speed["read_bytes"].as_f64()?;
    Some(("bandwidth", subject.speed("generation_tokens_per_s") * bytes / hardware.best(What::MemoryRead)?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::measure::hardware::Rate;
    use crate::report::numbers::{Numbers, Of, PERPLEXITY, SPEED, Subject, VERSION, short_names};

    /// A base and an adapter that learnt: every record a nat lower but for each tenth, a little higher.
    pub(crate) fn sample() -> Numbers {
        let labels = ["models/base", "adapters/taught"].map(str::to_owned);
        let before: Vec<Loss> = (0..100).map(|i| (3.0 + f64::from(i % 7) / 7.0, 4 + i as usize % 3)).collect();
        let after: Vec<Loss> =
            before.iter().enumerate().map(|(i, (l, n))| (l - if i % 10 == 0 { -0.1 } else { 1.0 }, *n)).collect();
        let subjects = short_names(&labels).into_iter().enumerate().map(|(i, name)| Subject {
            label: labels[i].clone(),
            name,
            bytes: 100_000_000 + i as u64 * 2_000_000,
            base: (i == 1).then(|| labels[0].clone()),
            own_bytes: (i == 1).then_some(2_000_000),
            ..Subject::default()
        });
        let answer = |text: &str, cut| Answer { text: text.to_owned(), cut };
        Numbers {
            version: VERSION,
            of: Of::Language,
            label: "reports/sample".into(),
            metrics: vec![PERPLEXITY.into()],
            seed: 7,
            subjects: subjects.collect(),
            texts: vec![Texts {
                on: "data/words".into(),
                split: "test".into(),
                records: 100,
                tokens: before.iter().map(|l| l.1).sum(),
                cut: 0,
                rows: vec![row(&labels[0], &before, None, 7), row(&labels[1], &after, Some(&before), 7)],
                examples: vec![Example {
                    prompt: "What is <b>?".into(),
                    completion: "a | letter".into(),
                    tokens: 4,
                    losses: vec![3.0, 2.0],
                }],
                losses: [&before, &after].map(|l| l.iter().map(|(loss, _)| *loss).collect()).into(),
            }],
            answers: vec![Answers {
                prompt: "What is <b>?".into(),
                answers: vec![answer("a tag\nof HTML | and", true), answer("", false)],
            }],
            ..Numbers::default()
        }
    }

    /// The same with their speeds, and what the machine can do.
    pub(crate) fn with_hardware() -> Numbers {
        let mut numbers = sample();
        numbers.metrics.push(SPEED.into());
        numbers.machine = "a processor, 8 cores".into();
        let rate = |of, best: f64| Rate { of, best, median: 0.9 * best, rounds: 9 };
        numbers.hardware = Some(Hardware {
            version: 1,
            machine: numbers.machine.clone(),
            backend: Backend::Candle,
            threads: 8,
            rates: vec![rate(What::MemoryRead, 40e9), rate(What::F32, 300e9), rate(What::Int8, 700e9)],
        });
        for (i, subject) in numbers.subjects.iter_mut().enumerate() {
            subject.speed = serde_json::json!({
                "rounds": 5, "prompt": 256, "generate": 64, "load_ms": 210.0, "peak_bytes": 400_000_000,
                "prompt_tokens_per_s": 600.0 + 300.0 * i as f64, "generation_tokens_per_s": 40.0 + 25.0 * i as f64,
                "read_bytes": 538_000_000 >> i, "weights_a_token": 134_515_008, "weights_a_prompt_token": 106_203_456,
            });
        }
        numbers
    }

    #[test]
    fn speeds_are_told_as_shares_of_what_the_machine_can_do() {
        let numbers = with_hardware();
        let (hardware, subject) = (numbers.hardware.as_ref().expect("measured"), &numbers.subjects[0]);
        let (of, share) = prompt_share(hardware, subject).expect("a share");
        assert!(of == "f32 rate" && (share - 600.0 * 2.0 * 106_203_456.0 / 300e9).abs() < 1e-9, "{share}");
        let (of, share) = generation_share(hardware, subject).expect("a share");
        assert!(of == "bandwidth" && (share - 40.0 * 538e6 / 40e9).abs() < 1e-9, "{share}");
        // What an older part did not tell is of no share.
        assert_eq!(generation_share(hardware, &sample().subjects[0]), None);
    }

    #[test]
    fn a_ratio_is_paired_and_narrower_than_the_intervals_suggest() {
        let numbers = sample();
        let [before, after] = &numbers.texts[0].rows[..] else { panic!("two models") };
        let (d, ratio) = (after.difference.unwrap(), after.ratio.unwrap());
        assert!((after.loss.value - before.loss.value - d.value).abs() < 1e-9 && d.sign() == -1, "{d:?}");
        assert!((ratio.value - after.perplexity.value / before.perplexity.value).abs() < 1e-9);
        assert!((ratio.low - d.low.exp()).abs() < 1e-12 && ratio.low < ratio.value && ratio.value < ratio.high);
        let unpaired = after.perplexity.high / before.perplexity.low - after.perplexity.low / before.perplexity.high;
        assert!(ratio.high - ratio.low < 0.7 * unpaired, "{ratio:?} {unpaired}");
        assert_eq!(after.better, Some(90));
        assert!(before.ratio.is_none() && before.better.is_none());
    }

    #[test]
    fn tokens_count_alike_and_not_records() {
        assert_eq!(mean_loss(&[(1.0, 3), (5.0, 1)]), 2.0);
        let row = row("m", &[(1.0, 3), (5.0, 1)], None, 0);
        assert!((row.perplexity.value - 2f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn no_difference_does_not_stand_out() {
        let losses: Vec<Loss> = (0..50).map(|i| (f64::from(i), 3)).collect();
        let same = row("m", &losses, Some(&losses), 7);
        assert_eq!(same.ratio, Some(Estimate { value: 1.0, low: 1.0, high: 1.0 }));
        assert!(!same.difference.unwrap().stands_out && same.better == Some(0));
    }

    #[test]
    fn what_changed_most_is_at_both_ends() {
        assert_eq!(changed_most(&[1.0, 0.0, 3.0, 1.0, 1.0], &[1.0; 5], 1), [1, 2]);
        assert_eq!(changed_most(&[1.0, 0.0], &[1.0; 2], 4), [1, 0], "each once");
    }
}
