//! The plots of times.

use crate::measure::Series;
use crate::measure::estimate::Estimate;
use crate::measure::summary::median_of;
use crate::report::figures::Figure;
use crate::report::numbers::Numbers;
use crate::report::plot::panels::{self, Curve, Panel, Style};
use crate::report::plot::strips::{self, Strip};
use crate::report::timing::page::unit;
use crate::report::timing::words::Unit;
use crate::report::timing::{Group, Row, Timing};
use crate::report::words::cut;

/// Names are no longer than this beside a plot.
const NAME_LENGTH: usize = 28;

/// Medians as bars, every round as a point, and times along the rounds; of each workload by itself.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let Some(timing) = &numbers.timing else { return Vec::new() };
    let groups = timing.groups();
    let figures = |(number, group): (usize, &Group<'_>)| {
        let (suffix, title) = match groups.len() {
            1 => (String::new(), String::new()),
            _ => (format!("-{}", number + 1), format!("{}. ", group.title())),
        };
        of(numbers, timing, group, &title).map(|(name, svg)| (format!("{name}{suffix}"), svg))
    };
    groups.iter().enumerate().flat_map(figures).collect()
}

fn of(numbers: &Numbers, timing: &Timing, group: &Group<'_>, title: &str) -> [(&'static str, String); 3] {
    let unit = unit(group.rows.iter().map(|(row, _)| *row));
    let strip = |(row, series): &(&Row, &Series)| {
        let Estimate { value, low, high } = row.summary.p50_s;
        let of = |seconds: f64| seconds * unit.per_second;
        Strip {
            label: cut(&numbers.subjects[row.place].name, NAME_LENGTH),
            colour: row.place,
            estimate: Estimate { value: of(value), low: of(low), high: of(high) },
            text: format!("{} {}", unit.text(value), unit.name),
            values: series.wall_s.iter().copied().map(of).collect(),
        }
    };
    let strips: Vec<Strip> = group.rows.iter().map(strip).collect();
    let name = |what: &str| format!("{what}, {}", unit.name);
    let titled = |text: &str| format!("{title}{text}");
    let times = titled("Median time of a round, with 95 % intervals");
    let rounds = titled("Every round, with quartiles and median");
    [
        ("times", strips::bars(&times, &name("median wall time"), &strips)),
        ("rounds", strips::strips(&rounds, &name("wall time"), &strips)),
        ("course", course(numbers, timing, group, title)),
    ]
}

/// Times along the rounds, and the probe's: what drifts together is the machine.
fn course(numbers: &Numbers, timing: &Timing, group: &Group<'_>, title: &str) -> String {
    let panel = |name: String, colour, times: &[f64]| {
        let unit = Unit::of(median_of(times));
        let points = times.iter().enumerate().map(|(i, s)| (i as f64 + 1.0, s * unit.per_second)).collect();
        let curves = vec![Curve { name: String::new(), colour, points, style: Style::Smoothed }];
        Panel { name: format!("{name}, {}", unit.name), colour: Some(colour), y_name: "", from_zero: false, curves }
    };
    let of = |(row, series): &(&Row, &Series)| {
        panel(cut(&numbers.subjects[row.place].name, NAME_LENGTH), row.place, &series.wall_s)
    };
    let mut panels: Vec<Panel> = group.rows.iter().map(of).collect();
    panels.push(panel("probe of the machine's pace".into(), numbers.subjects.len(), &timing.probe_s));
    panels::draw(&format!("{title}Round by round (thin: each round, thick: moving mean)"), "round", &panels)
}
