//! `card.md`: the report as a section of a model card, with its numbers in front as the Hugging Face Hub reads them
//! (`model-index`, the format of `huggingface_hub.EvalResult`).

use std::fmt::Write;

use serde_json::{Value, json};

use crate::report::language::words::texts_name;
use crate::report::numbers::{ACCURACY, KL, Numbers, Of, PERPLEXITY};
use crate::report::tables;

/// Results on one dataset.
struct Result<'a> {
    /// The Hub's word for what was done.
    task: &'static str,
    /// The dataset: its label or name, and how it is called.
    dataset: (String, String),
    /// What is measured, how it is called, and the value.
    metrics: Vec<(&'a str, String, f64)>,
}

/// The card: each subject's results in front, then what `report.md` says.
pub fn markdown(numbers: &Numbers) -> String {
    let mut card = String::from("---\nmodel-index:\n");
    let mut any = false;
    for (at, subject) in numbers.subjects.iter().enumerate() {
        let results: Vec<Result<'_>> = results(numbers, at).into_iter().filter(|r| !r.metrics.is_empty()).collect();
        if results.is_empty() {
            continue;
        }
        any = true;
        let _ = writeln!(card, "- name: {}\n  results:", quoted(&subject.name));
        for Result { task, dataset: (kind, name), metrics } in results {
            let _ = writeln!(card, "  - task:\n      type: {task}");
            let _ = writeln!(card, "    dataset:\n      type: {}\n      name: {}", quoted(&kind), quoted(&name));
            let _ = writeln!(card, "    metrics:");
            for (metric, name, value) in metrics {
                let (metric, name) = (quoted(metric), quoted(&name));
                let _ = writeln!(card, "    - type: {metric}\n      name: {name}\n      value: {}", number(value));
            }
        }
    }
    if !any {
        card = String::from("---\nmodel-index: []\n");
    }
    card + "---\n\n" + &tables::markdown(numbers)
}

/// What is known of a subject, by dataset. A number that is none, such as a loss that diverged, is left out: YAML has no
/// word for it that all readers know.
fn results(numbers: &Numbers, at: usize) -> Vec<Result<'_>> {
    let mut all = Vec::new();
    for test in &numbers.tests {
        let row = &test.rows[at];
        let recall = |name: &'static str, way: &str, value: f64| (name, format!("R@{}, {way}", &name[7..]), value);
        let ks = ["recall@1", "recall@5", "recall@10"];
        let there = ks.iter().filter_map(|k| Some(recall(k, "text to picture", row.t2i.get(k)?.value)));
        let back = ks.iter().filter_map(|k| Some(recall(k, "picture to text", row.i2t.get(k)?.value)));
        let metrics = there.chain(back).collect();
        all.push(Result { task: "image-text-retrieval", dataset: (test.name.clone(), test.name.clone()), metrics });
    }
    for zero in &numbers.zero_shot {
        all.push(Result {
            task: "zero-shot-image-classification",
            dataset: (zero.column.clone(), format!("by {}", zero.column)),
            metrics: vec![(ACCURACY, "accuracy".into(), zero.rows[at].accuracy.value)],
        });
    }
    for texts in &numbers.texts {
        let row = &texts.rows[at];
        let first = numbers.subjects.first().map_or("", |s| s.name.as_str());
        let mut metrics = Vec::new();
        if numbers.has(PERPLEXITY) {
            metrics.push((PERPLEXITY, PERPLEXITY.to_owned(), row.perplexity.value));
            metrics.push(("loss", "loss, nats a token".to_owned(), row.loss.value));
        }
        metrics.extend(row.accuracy.map(|e| (ACCURACY, "accuracy of the next token".to_owned(), e.value)));
        metrics.extend(row.divergence.map(|e| (KL, format!("KL divergence from {first}, nats a token"), e.value)));
        all.push(Result { task: "text-generation", dataset: (texts.on.clone(), texts_name(texts)), metrics });
    }
    for encoded in &numbers.encoded {
        let (row, first) = (&encoded.rows[at], numbers.subjects.first().map_or("", |s| s.name.as_str()));
        all.push(Result {
            task: "feature-extraction",
            dataset: (encoded.on.clone(), format!("{}, {}", encoded.on, encoded.split)),
            metrics: vec![
                ("cosine", format!("mean cosine to the vectors of {first}"), 1.0 - row.distance.value),
                ("same-nearest", format!("same nearest as by {first}"), row.same_nearest.value),
            ],
        });
    }
    if numbers.of == Of::Told {
        let values = numbers.told.iter().filter_map(|told| Some((told, told.rows[at].value?)));
        // What was told has a name and no dataset that the report knows of: the report stands for it.
        let metrics = values.map(|(told, value)| ("told", told.name.clone(), value)).collect();
        all.push(Result { task: "other", dataset: (numbers.label.clone(), numbers.label.clone()), metrics });
    }
    if let Some(predicted) = &numbers.predicted {
        let task = match predicted.classes.len() {
            0 => "other",
            _ => "tabular-classification",
        };
        let values = predicted.metrics.iter().filter_map(|scored| Some((scored, scored.rows[at].estimate?.value)));
        let metrics = values.map(|(scored, value)| (scored.metric.as_str(), scored.metric.clone(), value)).collect();
        all.push(Result { task, dataset: (numbers.label.clone(), numbers.label.clone()), metrics });
    }
    for result in &mut all {
        result.metrics.retain(|(.., value)| value.is_finite());
    }
    all
}

/// A text of YAML, which takes JSON's as they are.
fn quoted(text: &str) -> Value {
    Value::from(text)
}

/// As YAML 1.1 has numbers, by which cards are read: without a point, or a sign of the power, "2e-7" would be a text.
fn number(value: f64) -> String {
    let plain = json!(value).to_string();
    let Some((digits, power)) = plain.split_once('e') else { return plain };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if power.starts_with(['-', '+']) { "" } else { "+" };
    format!("{digits}{point}e{sign}{power}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_one_in_yaml() {
        let numbers = [2e-7, 6.6e-7, 0.7, 1.0, 1e300, -3e-9].map(number);
        assert_eq!(numbers, ["2.0e-7", "6.6e-7", "0.7", "1.0", "1.0e+300", "-3.0e-9"]);
    }
    use crate::report::{encoders, language, quantization, retrieval, told};

    fn front(numbers: &Numbers) -> String {
        let card = markdown(numbers);
        card.split("---\n").nth(1).expect("front matter").to_owned()
    }

    #[test]
    fn each_subject_has_its_results_in_front() {
        let card = front(&retrieval::tests::sample());
        assert!(
            card.starts_with("model-index:\n- name: \"a\"\n  results:\n  - task:\n      type: image-text-retrieval\n")
        );
        assert!(
            card.contains("    - type: \"recall@10\"\n      name: \"R@10, text to picture\"\n      value: 0.7\n"),
            "{card}"
        );
        assert_eq!(card.matches("\n- name: ").count() + 1, 1 + 3, "{card}");
        assert!(card.contains("      type: zero-shot-image-classification\n"));
        let card = front(&language::tests::sample());
        assert!(
            card.contains("      type: \"data/words\"\n      name: \"data/words, test\"\n")
                && card.contains("\"perplexity\"")
        );
        assert!(front(&quantization::tests::sample()).contains("KL divergence from smollm2, nats a token"));
        assert!(front(&encoders::tests::sample()).contains("mean cosine to the vectors of e\"\n      value: 1.0\n"));
    }

    #[test]
    fn what_was_not_told_or_is_no_number_is_left_out() {
        let mut numbers = told::tests::sample();
        let card = front(&numbers);
        assert_eq!(card.matches("name: \"train.loss\"").count(), 2, "{card}");
        numbers.told[0].rows[0].value = Some(f64::NAN);
        assert_eq!(front(&numbers).matches("name: \"accuracy\"").count(), 2);
        numbers.told.clear();
        assert_eq!(front(&numbers), "model-index: []\n");
    }
}
