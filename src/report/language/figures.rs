//! The plots of language models.

use crate::measure::hardware::{Hardware, What};
use crate::report::figures::Figure;
use crate::report::language::Texts;
use crate::report::language::words::{perplexity_text, texts_name};
use crate::report::numbers::{Numbers, PERPLEXITY};
use crate::report::plot::dots::{self, Dots, Group, Mark};
use crate::report::plot::histograms::{self, Histogram};
use crate::report::plot::roofline::{self, Point, Roofline};
use crate::report::quantization::figures::{Axes, fronts};
use crate::report::shown::{PANELS, ROWS, out_of, shown};

/// Perplexities with their intervals, and how the losses of the first texts' records are spread; where models stand by
/// their divergence, size and speed against it instead.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let mut figures = of_texts(numbers);
    figures.extend(numbers.hardware.as_ref().map(|hardware| ("roofline".to_owned(), roofline(numbers, hardware))));
    figures
}

/// Models up to which both of a model's points have its name.
const NAMED_TWICE_MAX: usize = 6;

/// What each model reaches of what the machine can do: reading a prompt, and generating.
fn roofline(numbers: &Numbers, hardware: &Hardware) -> String {
    let level = |(of, name): (What, &str)| Some((format!("{name} GFLOP/s"), hardware.best(of)?));
    let mut levels: Vec<(String, f64)> =
        [(What::F32, "f32"), (What::Bf16, "bf16"), (What::Int8, "int8")].into_iter().filter_map(level).collect();
    levels.sort_by(|a, b| a.1.total_cmp(&b.1));
    // Of many models a name each is what there is room for.
    let has_room = numbers.subjects.len() <= NAMED_TWICE_MAX;
    let points = numbers.subjects.iter().enumerate().flat_map(|(colour, subject)| {
        let point = |rate: &str, weights: &str, tokens: f64, hollow| {
            let operations = 2.0 * subject.speed(weights);
            let what = if hollow { "reading a prompt" } else { "generating" };
            Point {
                name: format!("{}, {what}", subject.name),
                label: if hollow && !has_room { String::new() } else { subject.name.clone() },
                colour,
                intensity: tokens * operations / subject.speed("read_bytes"),
                rate: subject.speed(rate) * operations,
                hollow,
            }
        };
        [
            point("prompt_tokens_per_s", "weights_a_prompt_token", subject.speed("prompt"), true),
            point("generation_tokens_per_s", "weights_a_token", 1.0, false),
        ]
    });
    let points: Vec<Point> = points.filter(|p| p.intensity > 0.0 && p.intensity.is_finite() && p.rate > 0.0).collect();
    roofline::draw(&Roofline {
        title: "What is reached of what this machine can do (filled: generating, hollow: reading a prompt)",
        bandwidth: hardware.best(What::MemoryRead).unwrap_or(f64::NAN),
        levels: &levels,
        points: &points,
    })
}

fn of_texts(numbers: &Numbers) -> Vec<Figure> {
    let Some(texts) = numbers.texts.first() else { return Vec::new() };
    match &numbers.quantization {
        Some(found) => {
            let original = numbers.subjects.first().map_or("", |s| s.name.as_str());
            let axes = Axes {
                distance: "divergence",
                y_name: &format!("KL divergence from {original}, nats, with 95 % intervals"),
                levels: found.limits.iter().filter_map(|r| r.limit.kl).map(|kl| (kl, format!("KL {kl}"))).collect(),
                speed: Some(("generation_tokens_per_s", "tokens generated a second")),
            };
            fronts(numbers, found, &axes)
        }
        None if numbers.has(PERPLEXITY) => {
            vec![("perplexity".into(), perplexity(numbers)), ("records".into(), records(numbers, texts))]
        }
        None => Vec::new(),
    }
}

/// How the losses of a text's records are spread.
fn records(numbers: &Numbers, texts: &Texts) -> String {
    let histograms: Vec<Histogram> = shown(numbers, PANELS)
        .into_iter()
        .map(|i| Histogram { label: numbers.subjects[i].name.clone(), colour: i, values: texts.losses[i].clone() })
        .collect();
    let title = format!("Loss of each record, {}{}", texts_name(texts), out_of(numbers, PANELS));
    histograms::draw(
        &title,
        "nats a token; upright line: the median; number at the left: records in the tallest bar",
        &histograms,
    )
}

fn perplexity(numbers: &Numbers) -> String {
    let shown = shown(numbers, ROWS);
    let groups: Vec<Group> = numbers
        .texts
        .iter()
        .map(|texts| Group {
            name: texts_name(texts),
            line: texts.rows.first().map_or(0.0, |row| row.perplexity.value),
            marks: shown
                .iter()
                .map(|i| (*i, &texts.rows[*i]))
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
    let title = format!("Perplexity, with 95 % intervals{}", out_of(numbers, ROWS));
    dots::draw(&Dots { title: &title, x_name: &x_name, line_name: first, groups: &groups })
}
