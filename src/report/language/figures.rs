//! The plots of language models.

use crate::report::figures::Figure;
use crate::report::language::Texts;
use crate::report::language::quantization::{Quantization, nearer_and_nearer};
use crate::report::language::words::{megabytes, perplexity_text, texts_name};
use crate::report::numbers::{Numbers, PERPLEXITY, SPEED, Subject};
use crate::report::plot::front::{self, Front, Point};
use crate::report::plot::{self, Dots, Group, Histogram, Mark};

/// Perplexities with their intervals, and how the losses of the first texts' records are spread; where models stand by
/// their divergence, size and speed against it instead.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let Some(texts) = numbers.texts.first() else { return Vec::new() };
    match &numbers.quantization {
        Some(found) => fronts(numbers, texts, found),
        None if numbers.has(PERPLEXITY) => {
            vec![("perplexity".into(), perplexity(numbers)), ("records".into(), records(numbers, texts))]
        }
        None => Vec::new(),
    }
}

/// Size and, where it was measured, speed against divergence.
fn fronts(numbers: &Numbers, texts: &Texts, found: &Quantization) -> Vec<Figure> {
    let original = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let points = |x: &dyn Fn(&Subject) -> f64, on_front: &[usize]| -> Vec<Point> {
        let all = numbers.subjects.iter().zip(&texts.rows).enumerate();
        all.filter_map(|(i, (subject, row))| {
            Some(Point {
                label: subject.name.clone(),
                colour: i,
                x: x(subject),
                y: row.divergence?,
                on_front: on_front.contains(&i),
                is_ringed: found.takes(&subject.label),
            })
        })
        .collect()
    };
    let places = |labels: &[String]| -> Vec<usize> {
        labels.iter().filter_map(|label| numbers.subjects.iter().position(|s| s.label == *label)).collect()
    };
    let limits = found.limits.iter().map(|r| r.limit);
    let columns = limits.clone().filter_map(|limit| limit.bytes);
    let levels = limits.filter_map(|limit| limit.kl);
    let y_name = format!("KL divergence from {original}, nats, with 95 % intervals");
    let mut plot = Front {
        title: "Size against divergence",
        x_name: "MB on disk; filled and joined: nearer than every smaller model; ringed: recommended; dashed: limits",
        y_name: &y_name,
        is_log: true,
        columns: columns.map(|bytes| (bytes as f64 / 1e6, format!("{} MB", megabytes(bytes)))).collect(),
        levels: levels.map(|kl| (kl, format!("KL {kl}"))).collect(),
        points: points(&Subject::megabytes, &places(&found.front)),
    };
    let mut figures = vec![("front".to_owned(), front::draw(&plot))];
    if numbers.has(SPEED) {
        let speed = |s: &Subject| s.speed("generation_tokens_per_s");
        plot = Front {
            title: "Speed against divergence",
            x_name: "tokens generated a second; filled and joined: nearer than every faster model; ringed: recommended",
            is_log: false,
            columns: Vec::new(),
            points: points(&speed, &fastest(numbers, texts, &speed)),
            ..plot
        };
        figures.push(("speed".to_owned(), front::draw(&plot)));
    }
    figures
}

/// The models that are nearer to the original than every faster one, without the original, the fastest first.
fn fastest(numbers: &Numbers, texts: &Texts, speed: &dyn Fn(&Subject) -> f64) -> Vec<usize> {
    let kl = |i: usize| texts.rows[i].divergence.map_or(f64::INFINITY, |kl| kl.value);
    let of = |i: usize| speed(&numbers.subjects[i]);
    let mut order: Vec<usize> = (0..numbers.subjects.len()).collect();
    order.sort_by(|a, b| of(*b).total_cmp(&of(*a)).then(kl(*a).total_cmp(&kl(*b))));
    nearer_and_nearer(order, &kl)
}

/// How the losses of a text's records are spread.
fn records(numbers: &Numbers, texts: &Texts) -> String {
    let histograms: Vec<Histogram> = texts
        .losses
        .iter()
        .enumerate()
        .map(|(i, losses)| Histogram { label: numbers.subjects[i].name.clone(), colour: i, values: losses.clone() })
        .collect();
    let title = format!("Loss of each record: {}", texts_name(texts));
    plot::histograms(
        &title,
        "nats a token; upright line: the median; number at the left: records in the tallest bar",
        &histograms,
    )
}

fn perplexity(numbers: &Numbers) -> String {
    let groups: Vec<Group> = numbers
        .texts
        .iter()
        .map(|texts| Group {
            name: texts_name(texts),
            line: texts.rows.first().map_or(0.0, |row| row.perplexity.value),
            marks: texts
                .rows
                .iter()
                .enumerate()
                .map(|(i, row)| Mark {
                    label: numbers.subjects[i].name.clone(),
                    colour: i,
                    estimate: row.perplexity,
                    text: perplexity_text(row.perplexity.value),
                    sign: row.difference.map_or(0, |d| d.sign()),
                    hollow: false,
                })
                .collect(),
        })
        .collect();
    let first = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let x_name = match numbers.subjects.len() {
        1 => "perplexity; lower is better".to_owned(),
        _ => format!("perplexity, lower is better; a triangle at the right: differs from {first} beyond noise"),
    };
    plot::dots(&Dots { title: "Perplexity, with 95 % intervals", x_name: &x_name, line_name: first, groups: &groups })
}
