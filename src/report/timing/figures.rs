//! The plots of times.

use crate::measure::estimate::Estimate;
use crate::report::figures::Figure;
use crate::report::numbers::Numbers;
use crate::report::plot::panels::{self, Curve, Panel, Style};
use crate::report::plot::strips::{self, Strip};
use crate::report::timing::page::unit;
use crate::report::timing::{Row, Timing};
use crate::report::words::cut;

/// Names are no longer than this beside a plot.
const NAME_LENGTH: usize = 28;

/// Medians as bars, every round as a point, and times along the rounds.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let Some(timing) = &numbers.timing else { return Vec::new() };
    let unit = unit(timing);
    let strip = |(place, (row, series)): (usize, (&Row, &crate::measure::Series))| {
        let Estimate { value, low, high } = row.summary.p50_s;
        let of = |seconds: f64| seconds * unit.per_second;
        Strip {
            label: cut(&row.subject, NAME_LENGTH),
            colour: place,
            estimate: Estimate { value: of(value), low: of(low), high: of(high) },
            text: format!("{} {}", unit.text(value), unit.name),
            values: series.wall_s.iter().copied().map(of).collect(),
        }
    };
    let strips: Vec<Strip> = timing.rows.iter().zip(&timing.series).enumerate().map(strip).collect();
    let name = |what: &str| format!("{what}, {}", unit.name);
    vec![
        ("times".into(), strips::bars("Median time of a run, with 95 % intervals", &name("median wall time"), &strips)),
        ("rounds".into(), strips::strips("Every round, with quartiles and median", &name("wall time"), &strips)),
        ("course".into(), course(timing)),
    ]
}

/// Times along the rounds, and the probe's: what drifts together is the machine.
fn course(timing: &Timing) -> String {
    let panel = |name: String, colour, times: &[f64]| {
        let unit = crate::report::timing::words::Unit::of(crate::measure::summary::median_of(times));
        let points = times.iter().enumerate().map(|(i, s)| (i as f64 + 1.0, s * unit.per_second)).collect();
        let curves = vec![Curve { name: String::new(), colour, points, style: Style::Smoothed }];
        Panel { name: format!("{name}, {}", unit.name), colour: Some(colour), y_name: "", from_zero: false, curves }
    };
    let subjects = timing.rows.iter().zip(&timing.series).enumerate();
    let mut panels: Vec<Panel> =
        subjects.map(|(place, (row, series))| panel(cut(&row.subject, NAME_LENGTH), place, &series.wall_s)).collect();
    panels.push(panel("probe of the machine's pace".into(), timing.rows.len(), &timing.probe_s));
    panels::draw("Round by round (thin: each round, thick: moving mean)", "round", &panels)
}
