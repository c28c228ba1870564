//! Of the page: the table of told numbers, and its fronts.

use serde::Serialize;

use crate::report::numbers::Numbers;
use crate::report::page::{Cell, Table};
use crate::report::told::words::{as_shown, says, value_text};
use crate::report::told::{Front, Row, Told, figures};

/// The last value of each number.
pub fn summary(numbers: &Numbers) -> Table {
    let columns =
        numbers.told.iter().map(|told| (heading(told), told.rows.iter().map(|row| cell(told, row)).collect()));
    Table::of(columns.collect(), numbers.subjects.len())
}

/// A section of the page for each front.
#[derive(Debug, Serialize)]
pub struct Section {
    name: String,
    title: String,
    says: String,
}

/// The sections of fronts.
pub fn fronts(numbers: &Numbers) -> Vec<Section> {
    let section = |(i, front): (usize, &Front)| Section {
        name: figures::name_of(i),
        title: format!("{} against {}", front.across, front.up),
        says: says(numbers, front),
    };
    numbers.fronts.iter().enumerate().map(section).collect()
}

/// "accuracy \u{2191}".
fn heading(told: &Told) -> String {
    format!("{}{}", told.name, told.better.map_or("", |better| better.arrow()))
}

fn cell(told: &Told, row: &Row) -> Cell {
    let Some(value) = row.value else {
        return Cell { text: "\u{2013}".into(), note: "not told".into(), ..Cell::default() };
    };
    let best = told.best().filter(|best| told.rows.iter().any(|row| row.value.is_some_and(|v| as_shown(v) != *best)));
    let is_best = best == Some(as_shown(value));
    let point = told.better.and_then(|better| row.best_point(better));
    let note = point.map(|(step, value)| format!("best {} at {step}", value_text(value))).unwrap_or_default();
    Cell { text: value_text(value), note, best: is_best, mark: "" }
}
