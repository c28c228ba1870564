//! The plots of language models.

use crate::report::figures::Figure;
use crate::report::language::words::{perplexity_text, texts_name};
use crate::report::numbers::Numbers;
use crate::report::plot::{self, Dots, Group, Histogram, Mark};

/// Perplexities with their intervals, and how the losses of the first texts' records are spread.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let Some(texts) = numbers.texts.first() else { return Vec::new() };
    let histograms: Vec<Histogram> = texts
        .losses
        .iter()
        .enumerate()
        .map(|(i, losses)| Histogram { label: numbers.subjects[i].name.clone(), colour: i, values: losses.clone() })
        .collect();
    let title = format!("Loss of each record: {}", texts_name(texts));
    let records = plot::histograms(
        &title,
        "nats a token; upright line: the median; number at the left: records in the tallest bar",
        &histograms,
    );
    vec![("perplexity".into(), perplexity(numbers)), ("records".into(), records)]
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
