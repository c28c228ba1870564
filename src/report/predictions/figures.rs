//! The plots of predictions.

use crate::report::figures::Figure;
use crate::report::numbers::Numbers;
use crate::report::plot::dots::{self, Dots, Group, Mark};
use crate::report::plot::heat::{self, Heat};
use crate::report::plot::panels::{self, Curve, Panel, Style};
use crate::report::predictions::words::text;
use crate::report::predictions::{ByClass, Calibration, Predicted, Scored};
use crate::report::shown::{PANELS, ROWS, out_of, shown};

/// Classes up to which a matrix is drawn: more have no place for their names.
const CLASSES_MAX: usize = 30;
/// Targets up to which each has a matrix.
const MATRICES_MAX: usize = 6;

/// Values with intervals, calibration, and who was taken for what.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let Some(predicted) = &numbers.predicted else { return Vec::new() };
    let mut figures = Vec::new();
    let (shares, others): (Vec<&Scored>, Vec<&Scored>) = predicted.metrics.iter().partition(|scored| scored.is_share);
    // What has a scale in common is one plot.
    for (name, group) in [("scores".to_owned(), shares)]
        .into_iter()
        .chain(others.into_iter().map(|scored| (format!("score-{}", scored.metric), vec![scored])))
        .filter(|(_, group)| !group.is_empty())
    {
        figures.push((name, scores(numbers, predicted, &group)));
    }
    if !predicted.calibration.is_empty() {
        figures.push(("calibration".to_owned(), calibration(numbers, &predicted.calibration)));
    }
    if (2..=CLASSES_MAX).contains(&predicted.classes.len()) {
        let shown = shown(numbers, MATRICES_MAX).into_iter().filter_map(|i| Some((i, predicted.by_class.get(i)?)));
        figures.extend(shown.map(|(i, of)| (format!("confusion-{}", i + 1), confusion(numbers, predicted, i, of))));
    }
    figures
}

fn scores(numbers: &Numbers, predicted: &Predicted, metrics: &[&Scored]) -> String {
    let shown = shown(numbers, ROWS);
    let group = |scored: &&Scored| {
        let mark = |(i, row): (usize, &super::Row)| {
            let estimate = row.estimate?;
            Some(Mark {
                label: numbers.subjects[i].name.clone(),
                colour: i,
                estimate,
                text: text(scored, estimate.value),
                sign: row.difference.map_or(0, |d| d.sign()),
                hollow: false,
            })
        };
        let first = scored.rows.iter().find_map(|row| row.estimate).map_or(0.0, |e| e.value);
        let better = if scored.is_error { "lower is better" } else { "higher is better" };
        Group {
            name: format!("{}, {better}", scored.metric),
            line: first,
            marks: shown.iter().map(|i| (*i, &scored.rows[*i])).filter_map(mark).collect(),
        }
    };
    let groups: Vec<Group> = metrics.iter().map(group).collect();
    let first = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let unit = match metrics {
        [one] if !one.is_share => one.metric.clone(),
        _ => "share".to_owned(),
    };
    dots::draw(&Dots {
        title: &format!("Scores of {} items, with 95 % intervals{}", predicted.items, out_of(numbers, ROWS)),
        x_name: &format!("{unit}; a triangle at the right: differs from {first} beyond noise"),
        line_name: &format!("as {first}"),
        groups: &groups,
    })
}

fn calibration(numbers: &Numbers, all: &[Calibration]) -> String {
    let panel = |(colour, of): (usize, &Calibration)| {
        let points = of.bins.iter().map(|(held, right, _)| (*held, *right)).collect();
        Panel {
            name: numbers.subjects[colour].name.clone(),
            colour: Some(colour),
            y_name: "share that is right",
            from_zero: true,
            curves: vec![
                Curve { name: "measured".into(), colour, points, style: Style::Plain },
                Curve { name: "calibrated".into(), colour, points: vec![(0.0, 0.0), (1.0, 1.0)], style: Style::Dashed },
            ],
        }
    };
    let panels: Vec<Panel> = shown(numbers, PANELS).into_iter().map(|i| panel((i, &all[i]))).collect();
    let title = format!("Calibration: the share that is right, by how sure the target was{}", out_of(numbers, PANELS));
    panels::draw(&title, "mean highest probability", &panels)
}

fn confusion(numbers: &Numbers, predicted: &Predicted, subject: usize, of: &ByClass) -> String {
    let share = |row: &Vec<u64>| {
        let all = row.iter().sum::<u64>().max(1) as f32;
        row.iter().map(|n| *n as f32 / all).collect::<Vec<_>>()
    };
    heat::draw(&Heat {
        title: &format!("{}: what each class was taken for", numbers.subjects[subject].name),
        note: "a row: a true class; a column: what it was taken for; shade: share of the row; dot: most often; framed: right",
        scale: "share",
        has_diagonal: true,
        names: &predicted.classes,
        values: &of.confusion.iter().flat_map(share).collect::<Vec<_>>(),
        colour: subject,
    })
}
