//! Of the page: the table of models by their distance.

use crate::report::numbers::{Numbers, Subject};
use crate::report::page::{Cell, Table, plain};
use crate::report::quantization::Quantization;

/// Columns under a heading.
pub type Columns = (String, Vec<(String, Vec<Cell>)>);

/// The models by their distance from the first: at which size, and what else is known, in groups of columns.
pub fn summary(numbers: &Numbers, found: &Quantization, more: Vec<Columns>) -> Table {
    let column = |pick: &dyn Fn(&Subject) -> f64| numbers.subjects.iter().map(pick).collect::<Vec<f64>>();
    let size = vec![
        ("bits a weight".to_owned(), plain(&column(&|s| s.bits_per_weight.unwrap_or(0.0)), 2, false)),
        ("MB".to_owned(), plain(&column(&Subject::megabytes), 1, false)),
    ];
    let all: Vec<Columns> =
        [("size".to_owned(), size)].into_iter().chain(more).filter(|(_, c)| !c.is_empty()).collect();
    let groups: Vec<(&str, usize)> = all.iter().map(|(name, columns)| (name.as_str(), columns.len())).collect();
    let note = |(i, subject): (usize, &Subject)| {
        let notes = [
            (found.takes(&subject.label), "recommended"),
            (i == 0, "the original"),
            (found.front.contains(&subject.label), "on the front"),
        ];
        notes.into_iter().find(|(holds, _)| *holds).map_or(String::new(), |(_, note)| note.to_owned())
    };
    let notes = numbers.subjects.iter().enumerate().map(note).collect();
    let columns = all.iter().flat_map(|(_, columns)| columns.clone()).collect();
    Table::of(columns, numbers.subjects.len()).under(&groups).with_notes(notes).in_order(&numbers.order())
}
