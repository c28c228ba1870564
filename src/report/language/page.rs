//! Of the page: the tables of language models.

use crate::report::language::Texts;
use crate::report::language::words::{perplexity_text, texts_name};
use crate::report::numbers::Numbers;
use crate::report::page::{Cell, Table, plain};
use crate::report::tables::{best, mark};

/// The perplexities of each text, their best marked, with or without intervals.
fn perplexities(texts: &Texts, interval: bool) -> Vec<Cell> {
    // By what is shown: of two that look the same, none is better.
    let shown: Vec<String> = texts.rows.iter().map(|row| perplexity_text(row.perplexity.value)).collect();
    let bests = best(&shown.iter().map(|text| text.parse().unwrap_or(0.0)).collect::<Vec<_>>(), false);
    let cells = texts.rows.iter().zip(shown).zip(bests).map(|((row, text), best)| Cell {
        text,
        note: match interval {
            true => format!("{}\u{2013}{}", perplexity_text(row.perplexity.low), perplexity_text(row.perplexity.high)),
            false => String::new(),
        },
        best,
        mark: mark(row.difference),
    });
    cells.collect()
}

/// One column a text, and sizes.
pub fn summary(numbers: &Numbers) -> Table {
    let mut columns: Vec<(String, Vec<Cell>)> =
        numbers.texts.iter().map(|texts| (texts_name(texts), perplexities(texts, true))).collect();
    let megabytes: Vec<f64> = numbers.subjects.iter().map(|s| s.megabytes()).collect();
    columns.push(("MB".into(), plain(&megabytes, 1, false)));
    Table::of(columns, numbers.subjects.len()).under(&[("perplexity", numbers.texts.len()), ("size", 1)])
}

/// All numbers of a text.
pub fn texts(texts: &Texts, first: &str) -> Table {
    let column = |cell: &dyn Fn(&crate::report::language::Row) -> Cell| texts.rows.iter().map(cell).collect::<Vec<_>>();
    let of = |text: String, note: String| Cell { text, note, ..Cell::default() };
    let none = || of("\u{b7}".into(), String::new());
    let mut columns = vec![
        ("perplexity".to_owned(), perplexities(texts, true)),
        (
            "loss, nats a token".to_owned(),
            column(&|row| {
                let e = row.loss;
                of(format!("{:.3}", e.value), format!("{:.3}\u{2013}{:.3}", e.low, e.high))
            }),
        ),
    ];
    if texts.rows.len() > 1 {
        let ratio = column(&|row| match row.ratio {
            None => none(),
            Some(r) => Cell {
                mark: mark(row.difference),
                ..of(format!("{:.3}", r.value), format!("{:.3}\u{2013}{:.3}", r.low, r.high))
            },
        });
        let better = column(&|row| match row.better {
            None => none(),
            Some(n) => of(n.to_string(), format!("of {} records", texts.records)),
        });
        columns.push((format!("ratio to {first}"), ratio));
        columns.push((format!("better than {first} on"), better));
    }
    Table::of(columns, texts.rows.len())
}

/// What each model takes on disk.
pub fn sizes(numbers: &Numbers) -> Table {
    let column =
        |pick: &dyn Fn(usize) -> f64| plain(&(0..numbers.subjects.len()).map(pick).collect::<Vec<_>>(), 1, false);
    let columns = vec![
        ("MB on disk".to_owned(), column(&|i| numbers.subjects[i].megabytes())),
        ("of its own".to_owned(), column(&|i| numbers.subjects[i].own_megabytes())),
    ];
    Table::of(columns, numbers.subjects.len())
}
