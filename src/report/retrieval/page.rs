//! Of the page: the tables of retrieval and zero-shot, and the examples.

use serde::Serialize;

use crate::measure::estimate::{Difference, Estimate};
use crate::report::numbers::Numbers;
use crate::report::page::{Cell, Table, plain};
use crate::report::retrieval::{Test, ZeroShot};
use crate::report::tables::mark;
use crate::report::words::signed;

/// What each model finds for the same few captions.
#[derive(Debug, Default, Serialize)]
pub struct Examples {
    /// The test they are of.
    pub test: String,
    /// Its pictures.
    pub n: usize,
    /// Each picture that is shown somewhere, once.
    pub pictures: Vec<Picture>,
    /// By model, in order; for each the same captions.
    pub models: Vec<Vec<Query>>,
}

/// A picture within the page.
#[derive(Debug, Serialize)]
pub struct Picture {
    /// Its own caption.
    pub caption: String,
    /// Its media type.
    pub mime: &'static str,
    /// Its bytes in base 64.
    pub data: String,
}

/// A caption, and what a model finds for it.
#[derive(Debug, Serialize)]
pub struct Query {
    /// The caption.
    pub caption: String,
    /// Of the right picture, 1 the first.
    pub rank: usize,
    /// The first few: which of the pictures, and whether it is the right one.
    pub found: Vec<(usize, bool)>,
}

/// One column a test.
pub fn summary(numbers: &Numbers) -> Table {
    let mut columns = Vec::new();
    for test in &numbers.tests {
        let all: Vec<_> = test.rows.iter().map(|row| (row.t2i["recall@10"], row.difference("recall@10"))).collect();
        columns.push((test.name.clone(), estimates(&all, false)));
    }
    for zero in &numbers.zero_shot {
        let all: Vec<_> = zero.rows.iter().map(|row| (row.accuracy, row.difference)).collect();
        columns.push((format!("by {}", zero.column), estimates(&all, false)));
    }
    let by = |pick: &dyn Fn(usize) -> f64| (0..numbers.subjects.len()).map(pick).collect::<Vec<_>>();
    columns.push(("MB".into(), plain(&by(&|i| numbers.subjects[i].megabytes()), 1, false)));
    columns.push(("pictures/s".into(), plain(&by(&|i| numbers.subjects[i].speed("pictures_per_s")), 0, true)));
    Table::of(columns, numbers.subjects.len()).under(&[
        ("R@10, text to picture", numbers.tests.len()),
        ("zero-shot accuracy", numbers.zero_shot.len()),
        ("size and speed", 2),
    ])
}

/// All numbers of a test.
pub fn retrieval(test: &Test, first: &str) -> Table {
    let text = |metric: &str, interval| {
        let all: Vec<_> = test.rows.iter().map(|row| (row.t2i[metric], row.difference(metric))).collect();
        estimates(&all, interval)
    };
    let back = |metric: &str| estimates(&test.rows.iter().map(|row| (row.i2t[metric], None)).collect::<Vec<_>>(), true);
    let apart = |metric: &str| differences(&test.rows.iter().map(|row| row.difference(metric)).collect::<Vec<_>>());
    let ranks: Vec<f64> = test.rows.iter().map(|row| row.t2i["median-rank"].value).collect();
    let mut columns: Vec<(String, Vec<Cell>)> = vec![
        ("R@1".into(), text("recall@1", true)),
        ("R@5".into(), text("recall@5", true)),
        ("R@10".into(), text("recall@10", true)),
        ("median rank".into(), plain(&ranks, 1, false)),
    ];
    let several = usize::from(test.rows.len() > 1) * 2;
    if several > 0 {
        columns.push(("R@1".into(), apart("recall@1")));
        columns.push(("R@10".into(), apart("recall@10")));
    }
    columns.push(("R@1".into(), back("recall@1")));
    columns.push(("R@10".into(), back("recall@10")));
    let from = format!("difference from {first}");
    Table::of(columns, test.rows.len()).under(&[("text to picture", 4), (&from, several), ("picture to text", 2)])
}

/// A classification.
pub fn zero_shot(zero: &ZeroShot, first: &str) -> Table {
    let accuracy: Vec<_> = zero.rows.iter().map(|row| (row.accuracy, row.difference)).collect();
    let mut columns = vec![("accuracy".to_owned(), estimates(&accuracy, true))];
    if zero.rows.len() > 1 {
        let apart: Vec<_> = zero.rows.iter().map(|row| row.difference).collect();
        columns.push((format!("difference from {first}"), differences(&apart)));
    }
    Table::of(columns, zero.rows.len())
}

/// Size, and speed on the machine.
pub fn speed(numbers: &Numbers) -> Table {
    let column = |name: &str, decimals, larger, pick: &dyn Fn(usize) -> f64| {
        let values: Vec<f64> = (0..numbers.subjects.len()).map(pick).collect();
        (name.to_owned(), plain(&values, decimals, larger))
    };
    let of = |key: &'static str| move |i: usize| numbers.subjects[i].speed(key);
    let columns = vec![
        column("MB on disk", 1, false, &|i| numbers.subjects[i].megabytes()),
        column("peak memory, MB", 0, false, &|i| numbers.subjects[i].speed("peak_bytes") / 1e6),
        column("load, ms", 0, false, &of("load_ms")),
        column("p50, ms", 1, false, &of("picture_p50_ms")),
        column("p95, ms", 1, false, &of("picture_p95_ms")),
        column("p50, ms", 1, false, &of("text_p50_ms")),
        column("p95, ms", 1, false, &of("text_p95_ms")),
        column("pictures/s", 0, true, &of("pictures_per_s")),
    ];
    let groups = [("", 3), ("one picture", 2), ("one text", 2), ("batches", 1)];
    Table::of(columns, numbers.subjects.len()).under(&groups)
}

/// A column of estimates, its best marked, and which differ from the first model's.
fn estimates(all: &[(Estimate, Option<Difference>)], interval: bool) -> Vec<Cell> {
    let mut cells = plain(&all.iter().map(|(e, _)| e.value).collect::<Vec<_>>(), 3, true);
    for (cell, (e, d)) in cells.iter_mut().zip(all) {
        cell.mark = mark(*d);
        if interval {
            cell.note = format!("{:.3}\u{2013}{:.3}", e.low, e.high);
        }
    }
    cells
}

/// A column of differences from the first model.
fn differences(all: &[Option<Difference>]) -> Vec<Cell> {
    let cell = |d: &Option<Difference>| match d {
        None => Cell { text: "\u{b7}".into(), ..Cell::default() },
        Some(d) => Cell {
            text: signed(d.value),
            note: format!("{} to {}", signed(d.low), signed(d.high)),
            best: false,
            mark: mark(Some(*d)),
        },
    };
    all.iter().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::retrieval::tests::sample;

    #[test]
    fn a_table_marks_the_best_and_what_differs() {
        let numbers = sample();
        let table = retrieval(&numbers.tests[0], "a");
        assert_eq!(table.columns.len(), 8);
        assert_eq!(table.groups.iter().map(|g| g.1).sum::<usize>(), 8);
        assert!(table.rows.iter().all(|row| row.len() == 8));
        let r10: Vec<(bool, &str)> = table.rows.iter().map(|row| (row[2].best, row[2].mark)).collect();
        assert_eq!(r10, [(true, ""), (false, ""), (false, "\u{25bc}")]);
    }
}
