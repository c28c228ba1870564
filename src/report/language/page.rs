//! Of the page: the tables of language models.

use crate::measure::hardware::Hardware;
use crate::report::language::words::{perplexity_text, texts_name};
use crate::report::language::{Row, Texts, generation_share, prompt_share};
use crate::report::numbers::{ACCURACY, Numbers, PERPLEXITY, SPEED, Subject};
use crate::report::page::{Cell, Table, plain, share};
use crate::report::quantization::{self, Quantization, distance_text, interval_text};
use crate::report::tables::{best, mark};

/// The perplexities of a text with their intervals, the best marked; but not where models stand by their divergence: by
/// perplexity a rounded model may seem better than the original.
fn perplexities(numbers: &Numbers, texts: &Texts) -> Vec<Cell> {
    // By what is shown: of two that look the same, none is better.
    let shown: Vec<String> = texts.rows.iter().map(|row| perplexity_text(row.perplexity.value)).collect();
    let bests = best(&shown.iter().map(|text| text.parse().unwrap_or(0.0)).collect::<Vec<_>>(), false);
    let cells = texts.rows.iter().zip(shown).zip(bests).map(|((row, text), best)| Cell {
        text,
        note: format!("{}\u{2013}{}", perplexity_text(row.perplexity.low), perplexity_text(row.perplexity.high)),
        best: best && numbers.quantization.is_none(),
        mark: mark(row.difference),
    });
    cells.collect()
}

/// One column a text and metric, sizes and speeds; where divergences are known, the models by them.
pub fn summary(numbers: &Numbers) -> Table {
    if let (Some(found), Some(texts)) = (&numbers.quantization, numbers.texts.first()) {
        return by_divergence(numbers, found, texts);
    }
    let mut columns = Vec::new();
    let mut groups = Vec::new();
    if numbers.has(PERPLEXITY) {
        columns.extend(numbers.texts.iter().map(|texts| (texts_name(texts), perplexities(numbers, texts))));
        groups.push((PERPLEXITY, numbers.texts.len()));
    }
    if numbers.has(ACCURACY) {
        columns.extend(numbers.texts.iter().map(|texts| (texts_name(texts), accuracies(numbers, texts))));
        groups.push(("accuracy, %", numbers.texts.len()));
    }
    let megabytes: Vec<f64> = numbers.subjects.iter().map(|s| s.megabytes()).collect();
    columns.push(("MB".into(), plain(&megabytes, 1, false)));
    groups.push(("size", 1));
    let speeds = speeds(numbers);
    groups.push(("on this machine", speeds.len()));
    columns.extend(speeds);
    groups.retain(|(_, columns)| *columns > 0);
    Table::of(columns, numbers.subjects.len()).under(&groups)
}

/// The models by their divergence from the first on the first texts: at which size, and how quick.
fn by_divergence(numbers: &Numbers, found: &Quantization, texts: &Texts) -> Table {
    let against = format!("against {}", numbers.subjects.first().map_or("", |s| s.name.as_str()));
    let mut measured = Vec::new();
    if numbers.has(PERPLEXITY) {
        measured.push((PERPLEXITY.to_owned(), perplexities(numbers, texts)));
    }
    if numbers.has(ACCURACY) {
        measured.push(("accuracy, %".to_owned(), accuracies(numbers, texts)));
    }
    let more = vec![
        (against, divergences(texts)),
        (texts_name(texts), measured),
        ("on this machine".to_owned(), speeds(numbers)),
    ];
    quantization::page::summary(numbers, found, more)
}

/// How far each model's predictions are from the first one's, where that is known.
fn divergences(texts: &Texts) -> Vec<(String, Vec<Cell>)> {
    let Some(kl) = texts.rows.iter().map(|row| row.divergence).collect::<Option<Vec<_>>>() else { return Vec::new() };
    // The original's own is nothing to compare with.
    let others: Vec<f64> = kl.iter().skip(1).map(|kl| kl.value).collect();
    let bests = [false].into_iter().chain(best(&others, false));
    let cells = kl.iter().zip(bests).map(|(kl, best)| Cell {
        text: distance_text(kl.value),
        note: interval_text(*kl),
        best,
        mark: "",
    });
    let same = |row: &Row| match (row.same_top, row.difference) {
        (Some(same), Some(_)) => share(same),
        _ => Cell { text: "100".into(), ..Cell::default() },
    };
    vec![("KL divergence, nats".into(), cells.collect()), ("same top, %".into(), texts.rows.iter().map(same).collect())]
}

/// Shares of tokens foreseen, the best marked where perplexities are.
fn accuracies(numbers: &Numbers, texts: &Texts) -> Vec<Cell> {
    let cells: Vec<Cell> = texts.rows.iter().map(|row| row.accuracy.map_or_else(Cell::default, share)).collect();
    let bests = best(&cells.iter().map(|cell| cell.text.parse().unwrap_or(0.0)).collect::<Vec<_>>(), true);
    cells
        .into_iter()
        .zip(bests)
        .map(|(cell, best)| Cell { best: best && numbers.quantization.is_none(), ..cell })
        .collect()
}

/// How quick each model is.
pub fn speed(numbers: &Numbers) -> Table {
    Table::of(speeds(numbers), numbers.subjects.len()).in_order(&numbers.order())
}

type Share = fn(&Hardware, &Subject) -> Option<(&'static str, f64)>;

/// How quick each model is, where that was measured.
fn speeds(numbers: &Numbers) -> Vec<(String, Vec<Cell>)> {
    if !numbers.has(SPEED) {
        return Vec::new();
    }
    let column = |name: &str, key: &str, scale: f64, decimals: usize, larger: bool| {
        let values: Vec<f64> = numbers.subjects.iter().map(|s| s.speed(key) * scale).collect();
        (name.to_owned(), plain(&values, decimals, larger))
    };
    let mut prompt = column("prompt, tokens/s", "prompt_tokens_per_s", 1.0, 1, true);
    let mut generation = column("generation, tokens/s", "generation_tokens_per_s", 1.0, 1, true);
    // Under each what it is of what the machine can do.
    for (cells, share) in [(&mut prompt.1, prompt_share as Share), (&mut generation.1, generation_share)] {
        for (cell, subject) in cells.iter_mut().zip(&numbers.subjects) {
            let share = numbers.hardware.as_ref().and_then(|hardware| share(hardware, subject));
            cell.note = share.map(|(of, share)| format!("{:.0} % of {of}", 100.0 * share)).unwrap_or_default();
        }
    }
    vec![
        column("load, ms", "load_ms", 1.0, 0, false),
        prompt,
        generation,
        column("peak, MB", "peak_bytes", 1e-6, 0, false),
    ]
}

/// All numbers of a text, in the order of the models.
pub fn texts(numbers: &Numbers, texts: &Texts) -> Table {
    let first = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let column = |cell: &dyn Fn(&Row) -> Cell| texts.rows.iter().map(cell).collect::<Vec<_>>();
    let of = |text: String, note: String| Cell { text, note, ..Cell::default() };
    let none = || of("\u{b7}".into(), String::new());
    let mut columns = divergences(texts);
    if numbers.has(PERPLEXITY) {
        columns.push((PERPLEXITY.to_owned(), perplexities(numbers, texts)));
        columns.push((
            "loss, nats a token".to_owned(),
            column(&|row| {
                let e = row.loss;
                of(format!("{:.3}", e.value), format!("{:.3}\u{2013}{:.3}", e.low, e.high))
            }),
        ));
    }
    if numbers.has(PERPLEXITY) && texts.rows.len() > 1 {
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
    if numbers.has(ACCURACY) {
        columns.push(("accuracy, %".to_owned(), accuracies(numbers, texts)));
    }
    Table::of(columns, texts.rows.len()).in_order(&numbers.order())
}

/// What each model takes on disk, and how quick it is where that was measured and the summary does not say all of it.
pub fn sizes(numbers: &Numbers) -> Table {
    let column =
        |pick: &dyn Fn(usize) -> f64| plain(&(0..numbers.subjects.len()).map(pick).collect::<Vec<_>>(), 1, false);
    let mut columns = vec![
        ("MB on disk".to_owned(), column(&|i| numbers.subjects[i].megabytes())),
        ("of its own".to_owned(), column(&|i| numbers.subjects[i].own_megabytes())),
    ];
    if numbers.quantization.is_none() {
        columns.extend(speeds(numbers));
    }
    Table::of(columns, numbers.subjects.len()).in_order(&numbers.order())
}
