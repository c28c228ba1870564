//! Of the page: the tables of times.

use crate::measure::estimate::{Difference, Estimate};
use crate::measure::kept::{Against, Memory, OfModel, Verdict};
use crate::measure::summary::Ratio;
use crate::report::numbers::Numbers;
use crate::report::page::{Cell, Table};
use crate::report::tables::{best, mark};
use crate::report::timing::words::Unit;
use crate::report::timing::{Group, Row, Timing};

/// The unit of all times that stand together: that of the slowest median.
pub fn unit<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Unit {
    Unit::of(rows.into_iter().map(|row| row.summary.p50_s.value).fold(0.0, f64::max))
}

/// Of each workload its title and its table; that of programs alone needs no title.
pub fn summaries(numbers: &Numbers) -> Vec<(String, Table)> {
    let Some(timing) = &numbers.timing else { return Vec::new() };
    let groups = timing.groups();
    let title = |group: &Group<'_>| {
        if groups.len() == 1 && group.workload.is_none() { String::new() } else { group.title() }
    };
    groups.iter().map(|group| (title(group), summary(timing, group))).collect()
}

/// Medians, percentiles, CPU time and memory of each subject, and how it is to the first; of models what they did in a second.
fn summary(timing: &Timing, group: &Group<'_>) -> Table {
    let rows: Vec<&Row> = group.rows.iter().map(|(row, _)| *row).collect();
    let unit = unit(rows.iter().copied());
    let cells = |cell: &dyn Fn(&Row) -> Cell| rows.iter().map(|row| cell(row)).collect::<Vec<_>>();
    let plain = |text: String| Cell { text, ..Cell::default() };
    let known = |e: Estimate, unit: Unit| Cell { note: unit.interval(e), ..plain(unit.text(e.value)) };
    let named = |name: &str| format!("{name}, {}", unit.name);
    let mut medians = cells(&|row| known(row.summary.p50_s, unit));
    // Where the machine was busy, or nothing is surely quicker than the rest, none is marked.
    let values: Vec<f64> = rows.iter().map(|row| row.summary.p50_s.value).collect();
    let stands_out = |row: &&Row| [row.ratio, row.by_backend].into_iter().flatten().any(|ratio| ratio.stands_out);
    if rows.iter().skip(1).any(stands_out) {
        medians.iter_mut().zip(best(&values, false)).for_each(|(cell, best)| cell.best = best);
    }
    let mut columns = vec![(named("median"), medians)];
    let by = |ratio: Option<Ratio>| {
        let Some(ratio) = ratio else { return plain("1".into()) };
        let note = format!("{:.3}\u{2013}{:.3}", ratio.low, ratio.high);
        let apart = Difference {
            value: ratio.value - 1.0,
            low: ratio.low - 1.0,
            high: ratio.high - 1.0,
            stands_out: ratio.stands_out,
        };
        Cell { text: format!("{:.3}", ratio.value), note, best: false, mark: mark(Some(apart)) }
    };
    if rows.iter().any(|row| row.ratio.is_some()) {
        columns.push((format!("by {}", rows[0].subject), cells(&|row| by(row.ratio))));
    }
    if let (true, Some(backend)) = (rows.iter().any(|row| row.by_backend.is_some()), rows[0].backend()) {
        columns.push((format!("by {}", backend.name()), cells(&|row| by(row.by_backend))));
    }
    if let Some(first) = rows[0].first_s {
        let unit = Unit::of(first.value);
        let cell = |row: &Row| row.first_s.map_or_else(Cell::default, |first| known(first, unit));
        columns.push((format!("first token, {}", unit.name), cells(&cell)));
    }
    for (i, rate) in rows[0].rates.iter().enumerate() {
        let cell = |row: &Row| row.rates.get(i).map_or_else(Cell::default, |rate| known(rate.per_s, Unit::PLAIN));
        columns.push((format!("{}/s", rate.of), cells(&cell)));
    }
    let missing =
        |rounds: usize| Cell { text: "\u{2013}".into(), note: format!("from {rounds} rounds on"), ..Cell::default() };
    let percentile =
        |value: Option<f64>, rounds| value.map_or_else(|| missing(rounds), |value| plain(unit.text(value)));
    let floor = timing.floor_bytes;
    let peak = |row: &Row| match (row.summary.peak_bytes, row.model.as_ref()) {
        (0, _) => Cell { text: "\u{2013}".into(), note: "not readable here".into(), ..Cell::default() },
        (bytes, Some(OfModel { memory: Some(memory), .. })) => {
            let beyond = bytes.saturating_sub(memory.weight_bytes);
            Cell {
                note: format!("{:.1} beyond the weights", megabytes(beyond)),
                ..plain(format!("{:.1}", megabytes(bytes)))
            }
        }
        // A program begins with the size of the process that starts it; a model's tells of itself alone.
        (bytes, None) if bytes <= floor => plain(format!("\u{2264} {:.1}", megabytes(floor))),
        (bytes, _) => plain(format!("{:.1}", megabytes(bytes))),
    };
    columns.extend([
        (named("p90"), cells(&|row| plain(unit.text(row.summary.p90_s)))),
        (named("p95"), cells(&|row| percentile(row.summary.p95_s, 20))),
        (named("p99"), cells(&|row| percentile(row.summary.p99_s, 100))),
        (named("least"), cells(&|row| plain(unit.text(row.summary.min_s)))),
        (named("mean"), cells(&|row| plain(unit.text(row.summary.mean_s)))),
        (named("CPU time"), cells(&|row| known(row.summary.cpu_s, unit))),
    ]);
    let memory = |row: &Row| row.model.as_ref().and_then(|model| model.memory);
    let of_memory = |bytes: &dyn Fn(&Memory) -> Option<f64>| {
        cells(&|row| {
            plain(memory(row).as_ref().and_then(bytes).map_or_else(String::new, |value| format!("{value:.1}")))
        })
    };
    if let Some(first) = memory(rows[0]) {
        columns.push(("weights, MB".into(), of_memory(&|memory| Some(megabytes(memory.weight_bytes)))));
        if first.token_bytes.is_some() {
            let bytes = |memory: &Memory| Some(memory.token_bytes? as f64 / 1e3);
            columns.push(("kept a token, kB".into(), of_memory(&bytes)));
        }
    }
    columns.extend([
        ("peak, MB".into(), cells(&peak)),
        ("rounds".into(), cells(&|row| plain(row.summary.rounds.to_string()))),
    ]);
    let mut table = Table::of(columns, rows.len());
    table.order = rows.iter().map(|row| row.place).collect();
    table
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Each subject beside its baseline.
pub fn against(timing: &Timing, found: &Against) -> Table {
    let unit = unit(&timing.rows);
    let cells = |cell: &dyn Fn(&crate::measure::kept::Row) -> Cell| found.rows.iter().map(cell).collect::<Vec<_>>();
    let plain = |text: String| Cell { text, ..Cell::default() };
    let verdict = |verdict| match verdict {
        Verdict::Slower => "\u{25b2} slower",
        Verdict::Quicker => "\u{25bc} quicker",
        Verdict::Within => "within",
        Verdict::Unknown => "not known",
    };
    let columns = vec![
        (format!("baseline, {}", unit.name), cells(&|row| plain(unit.text(row.then_s)))),
        (format!("now, {}", unit.name), cells(&|row| plain(unit.text(row.now_s)))),
        (
            "now by baseline".into(),
            cells(&|row| Cell {
                note: format!("{:.3}\u{2013}{:.3}", row.ratio.low, row.ratio.high),
                ..plain(format!("{:.3}", row.ratio.value))
            }),
        ),
        ("verdict".into(), cells(&|row| plain(verdict(row.verdict).into()))),
    ];
    let workload = |row: &Row| row.model.as_ref().map_or_else(String::new, |model| model.workload.name.clone());
    let mut table = Table::of(columns, found.rows.len()).with_notes(timing.rows.iter().map(workload).collect());
    table.order = timing.rows.iter().map(|row| row.place).collect();
    table
}
