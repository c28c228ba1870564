//! Of the page: the tables of encoders.

use crate::report::encoders::Encoded;
use crate::report::encoders::words::{cosine_text, encoded_name};
use crate::report::numbers::{Numbers, SPEED, Subject};
use crate::report::page::{Cell, Table, plain, share};
use crate::report::quantization::{self, distance_text, interval_text};
use crate::report::tables::best;

/// The models by their distance from the first on what is encoded first.
pub fn summary(numbers: &Numbers) -> Table {
    let (Some(encoded), Some(found)) = (numbers.encoded.first(), &numbers.quantization) else { return sizes(numbers) };
    let against = format!("against {}", numbers.subjects.first().map_or("", |s| s.name.as_str()));
    let more = vec![
        (format!("{against}: {}", encoded_name(encoded)), columns(encoded)),
        ("on this machine".into(), speeds(numbers)),
    ];
    quantization::page::summary(numbers, found, more)
}

/// How near each model's vectors are.
pub fn encoded(numbers: &Numbers, encoded: &Encoded) -> Table {
    Table::of(columns(encoded), encoded.rows.len()).in_order(&numbers.order())
}

fn columns(encoded: &Encoded) -> Vec<(String, Vec<Cell>)> {
    // The original's own are nothing to compare with.
    let marked =
        |values: Vec<f64>, larger: bool| [false].into_iter().chain(best(&values[1..], larger)).collect::<Vec<_>>();
    let rows = &encoded.rows;
    let nearest = marked(rows.iter().map(|row| row.distance.value).collect(), false);
    let distances = rows.iter().zip(nearest).map(|(row, best)| Cell {
        text: distance_text(row.distance.value),
        note: interval_text(row.distance),
        best,
        mark: "",
    });
    let least = marked(rows.iter().map(|row| row.least).collect(), true);
    let least =
        rows.iter().zip(least).map(|(row, best)| Cell { text: cosine_text(row.least), best, ..Cell::default() });
    let same = rows.iter().enumerate().map(|(i, row)| match i {
        0 => Cell { text: "100".into(), ..Cell::default() },
        _ => share(row.same_nearest),
    });
    vec![
        ("1 \u{2212} cosine".into(), distances.collect()),
        ("least cosine".into(), least.collect()),
        ("same nearest, %".into(), same.collect()),
    ]
}

/// How quick each model is, where that was measured.
fn speeds(numbers: &Numbers) -> Vec<(String, Vec<Cell>)> {
    if !numbers.has(SPEED) {
        return Vec::new();
    }
    let all = [
        ("load, ms", "load_ms", 1.0, 0, false),
        ("text, ms", "text_p50_ms", 1.0, 2, false),
        ("texts/s", "texts_per_s", 1.0, 0, true),
        ("picture, ms", "picture_p50_ms", 1.0, 1, false),
        ("pictures/s", "pictures_per_s", 1.0, 1, true),
        ("peak, MB", "peak_bytes", 1e-6, 0, false),
    ];
    let there = all.into_iter().filter(|(_, key, ..)| numbers.subjects.iter().any(|s| !s.speed[*key].is_null()));
    there
        .map(|(name, key, scale, decimals, larger)| {
            let values: Vec<f64> = numbers.subjects.iter().map(|s| s.speed(key) * scale).collect();
            (name.to_owned(), plain(&values, decimals, larger))
        })
        .collect()
}

/// What each model takes on disk.
pub fn sizes(numbers: &Numbers) -> Table {
    let column = |pick: &dyn Fn(&Subject) -> f64, decimals| {
        plain(&numbers.subjects.iter().map(pick).collect::<Vec<_>>(), decimals, false)
    };
    let columns = vec![
        ("MB on disk".to_owned(), column(&Subject::megabytes, 1)),
        ("bits a weight".to_owned(), column(&|s| s.bits_per_weight.unwrap_or(0.0), 2)),
    ];
    Table::of(columns, numbers.subjects.len()).in_order(&numbers.order())
}
