//! Of the page: the tables of times.

use crate::measure::estimate::Difference;
use crate::measure::kept::{Against, Verdict};
use crate::report::numbers::Numbers;
use crate::report::page::{Cell, Table};
use crate::report::tables::{best, mark};
use crate::report::timing::words::Unit;
use crate::report::timing::{Row, Timing};

/// The unit of all times: that of the slowest median.
pub fn unit(timing: &Timing) -> Unit {
    Unit::of(timing.rows.iter().map(|row| row.summary.p50_s.value).fold(0.0, f64::max))
}

/// Medians, percentiles, CPU time and memory of each subject, and how it is to the first.
pub fn summary(numbers: &Numbers) -> Table {
    let Some(timing) = &numbers.timing else { return Table::of(Vec::new(), 0) };
    let unit = unit(timing);
    let cells = |cell: &dyn Fn(&Row) -> Cell| timing.rows.iter().map(cell).collect::<Vec<_>>();
    let plain = |text: String| Cell { text, ..Cell::default() };
    let named = |name: &str| format!("{name}, {}", unit.name);
    let mut medians =
        cells(&|row| Cell { note: unit.interval(row.summary.p50_s), ..plain(unit.text(row.summary.p50_s.value)) });
    // Where the machine was busy, or nothing is surely quicker than the rest, none is marked.
    let values: Vec<f64> = timing.rows.iter().map(|row| row.summary.p50_s.value).collect();
    let stands_out = |row: &Row| row.ratio.is_some_and(|ratio| ratio.stands_out);
    if timing.rows.iter().skip(1).any(stands_out) {
        medians.iter_mut().zip(best(&values, false)).for_each(|(cell, best)| cell.best = best);
    }
    let mut columns = vec![(named("median"), medians)];
    if timing.rows.len() > 1 {
        let ratio = |row: &Row| {
            let Some(ratio) = row.ratio else { return plain("1".into()) };
            let note = format!("{:.3}\u{2013}{:.3}", ratio.low, ratio.high);
            let apart = Difference {
                value: ratio.value - 1.0,
                low: ratio.low - 1.0,
                high: ratio.high - 1.0,
                stands_out: ratio.stands_out,
            };
            Cell { text: format!("{:.3}", ratio.value), note, best: false, mark: mark(Some(apart)) }
        };
        columns.push((format!("by {}", timing.rows[0].subject), cells(&ratio)));
    }
    let missing =
        |rounds: usize| Cell { text: "\u{2013}".into(), note: format!("from {rounds} rounds on"), ..Cell::default() };
    let percentile =
        |value: Option<f64>, rounds| value.map_or_else(|| missing(rounds), |value| plain(unit.text(value)));
    let cpu = |row: &Row| Cell { note: unit.interval(row.summary.cpu_s), ..plain(unit.text(row.summary.cpu_s.value)) };
    let floor = timing.floor_bytes;
    let peak = |row: &Row| match row.summary.peak_bytes {
        0 => Cell { text: "\u{2013}".into(), note: "not readable here".into(), ..Cell::default() },
        bytes if bytes <= floor => plain(format!("\u{2264} {:.1}", floor as f64 / 1e6)),
        bytes => plain(format!("{:.1}", bytes as f64 / 1e6)),
    };
    columns.extend([
        (named("p90"), cells(&|row| plain(unit.text(row.summary.p90_s)))),
        (named("p95"), cells(&|row| percentile(row.summary.p95_s, 20))),
        (named("p99"), cells(&|row| percentile(row.summary.p99_s, 100))),
        (named("least"), cells(&|row| plain(unit.text(row.summary.min_s)))),
        (named("mean"), cells(&|row| plain(unit.text(row.summary.mean_s)))),
        (named("CPU time"), cells(&cpu)),
        ("peak, MB".into(), cells(&peak)),
        ("rounds".into(), cells(&|row| plain(row.summary.rounds.to_string()))),
    ]);
    Table::of(columns, timing.rows.len())
}

/// Each subject beside its baseline.
pub fn against(timing: &Timing, found: &Against) -> Table {
    let unit = unit(timing);
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
    Table::of(columns, found.rows.len())
}
