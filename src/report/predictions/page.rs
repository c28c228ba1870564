//! Of the page: the tables of predictions.

use crate::measure::estimate::Estimate;
use crate::report::numbers::Numbers;
use crate::report::page::{Cell, Table};
use crate::report::predictions::words::text;
use crate::report::predictions::{Predicted, Scored};
use crate::report::tables::{best, mark};

/// Classes up to which each has a column.
const CLASSES_MAX: usize = 24;

/// A column a metric.
pub fn summary(numbers: &Numbers) -> Table {
    let Some(predicted) = &numbers.predicted else { return Table::of(Vec::new(), 0) };
    Table::of(predicted.metrics.iter().map(column).collect(), numbers.subjects.len())
}

fn column(scored: &Scored) -> (String, Vec<Cell>) {
    // By what is shown: of two that look the same, none is better.
    let shown: Vec<f64> =
        scored.values().iter().map(|value| text(scored, *value).parse().unwrap_or(f64::NAN)).collect();
    let there: Vec<f64> = shown.iter().copied().filter(|value| !value.is_nan()).collect();
    let top = there.iter().zip(best(&there, !scored.is_error)).find_map(|(value, best)| best.then_some(*value));
    let cell = |(row, shown): (&super::Row, f64)| match row.estimate {
        None => Cell { text: "\u{2013}".into(), note: "no value".into(), ..Cell::default() },
        Some(Estimate { value, low, high }) => Cell {
            text: text(scored, value),
            note: format!("{}\u{2013}{}", text(scored, low), text(scored, high)),
            best: top == Some(shown),
            mark: mark(row.difference),
        },
    };
    let arrow = if scored.is_error { '\u{2193}' } else { '\u{2191}' };
    (format!("{} {arrow}", scored.metric), scored.rows.iter().zip(shown).map(cell).collect())
}

/// F1 of each class, where there are not too many of them for a table.
pub fn by_class(predicted: &Predicted) -> Option<Table> {
    let is_shown = !predicted.by_class.is_empty() && predicted.classes.len() <= CLASSES_MAX;
    let column = |(class, name): (usize, &String)| {
        let values: Vec<f64> = predicted.by_class.iter().map(|of| of.f1[class]).collect();
        (name.clone(), crate::report::page::plain(&values, 3, true))
    };
    let columns = || predicted.classes.iter().enumerate().map(column).collect();
    is_shown.then(|| Table::of(columns(), predicted.by_class.len()))
}
