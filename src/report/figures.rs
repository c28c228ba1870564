//! Which plots a report has, and from which of its numbers.

use crate::measure::estimate::Estimate;
use crate::report::measures::{self, Measure};
use crate::report::numbers::Numbers;
use crate::report::over::Over;
use crate::report::plot::multiples::{self, Multiples};
use crate::report::plot::panels::{self, Curve, Panel, Style};
use crate::report::plot::ranked::{self, Ranked};
use crate::report::shown::{PANELS, ROWS, among, out_of};
use crate::report::told::Better;
use crate::report::words::list;
use crate::report::{encoders, language, predictions, retrieval, timing, told};

/// A plot: the name of its files and its SVG.
pub type Figure = (String, String);

/// A model's losses.
pub struct Training {
    /// Which of the models.
    pub subject: usize,
    /// (step, loss) of each batch.
    pub train: Vec<(f64, f64)>,
    /// (step, loss) of each look at the validation split.
    pub validation: Vec<(f64, f64)>,
    /// (step, learning rate), where it was taken down.
    pub rate: Vec<(f64, f64)>,
}

/// All plots that are made of the numbers.
pub fn all(numbers: &Numbers, training: &[Training]) -> Vec<Figure> {
    let mut figures = retrieval::figures::all(numbers);
    figures.extend(language::figures::all(numbers));
    figures.extend(encoders::figures::all(numbers));
    figures.extend(told::figures::all(numbers));
    figures.extend(predictions::figures::all(numbers));
    figures.extend(timing::figures::all(numbers));
    figures.extend(ranking(numbers).map(|svg| ("ranking".to_owned(), svg)));
    figures.extend(numbers.over.as_ref().map(|over| ("matrix".to_owned(), matrix(numbers, over))));
    if !training.is_empty() {
        figures.push(("training".to_owned(), losses(numbers, training)));
    }
    figures
}

/// All subjects by their main number, where there are more than plots have rows for. Those that stand by a distance are all
/// in its own plot.
fn ranking(numbers: &Numbers) -> Option<String> {
    let main = measures::main(numbers).filter(|_| numbers.subjects.len() > ROWS && numbers.quantization.is_none())?;
    let mut order: Vec<(usize, Estimate)> =
        main.values.iter().enumerate().filter_map(|(i, e)| Some((i, (*e)?))).collect();
    order.sort_by(|(a, _), (b, _)| main.worth(*b).unwrap_or(0.0).total_cmp(&main.worth(*a).unwrap_or(0.0)));
    let values: Vec<(String, Estimate)> = order.iter().map(|(i, e)| (numbers.subjects[*i].name.clone(), *e)).collect();
    let interval = if main.has_interval { ", with 95 % intervals" } else { "" };
    Some(ranked::draw(&Ranked {
        title: &format!("All {} {}s", values.len(), numbers.noun()),
        x_name: &format!(
            "rank, 1 is the best; with its name: {}, the first {}",
            numbers.subjects[0].name,
            numbers.noun()
        ),
        y_name: &format!("{}{interval}", main.name),
        values: &values,
        // None where the first has no value.
        named: order.iter().position(|(i, _)| *i == 0).unwrap_or(values.len()),
    }))
}

/// Numbers over the axes of the matrix that subjects were made of: the first goes across, of the second each value has a
/// line, and all further ones make panels.
fn matrix(numbers: &Numbers, over: &Over) -> String {
    let mut panels: Vec<&[usize]> =
        over.places.iter().flatten().map(|place| place.get(2..).unwrap_or_default()).collect();
    panels.sort_unstable();
    panels.dedup();
    let number = |measure: &Measure| {
        let panel = |further: &&[usize]| {
            let within = |place: &&Vec<usize>| place.get(2..).unwrap_or_default() == *further;
            let line = |second: Option<usize>| {
                let points = over.places.iter().enumerate().filter_map(|(subject, place)| {
                    let place = place.as_ref().filter(within).filter(|place| place.get(1).copied() == second)?;
                    let label = numbers.subjects[subject].name.clone();
                    Some(multiples::Point { label, x: place[0], y: measure.values[subject]? })
                });
                let mut points: Vec<_> = points.collect();
                points.sort_by_key(|point| point.x);
                let name = second.map(|value| format!("{} {}", over.axes[1].name, over.axes[1].values[value]));
                multiples::Line { name: name.unwrap_or_default(), colour: second.unwrap_or(0), points }
            };
            let lines: Vec<_> = match over.axes.get(1) {
                Some(axis) => (0..axis.values.len()).map(Some).map(line).collect(),
                None => vec![line(None)],
            };
            let name = (2..over.axes.len()).map(|axis| {
                let value = &over.axes[axis].values[further[axis - 2]];
                format!("{} {value}", over.axes[axis].name)
            });
            multiples::Panel { name: name.collect::<Vec<_>>().join(", "), lines }
        };
        let arrow = measure.better.map_or("", Better::arrow);
        Multiples {
            name: format!("{}{arrow}", measure.name),
            x_name: &over.axes[0].name,
            x_values: &over.axes[0].values,
            panels: panels.iter().map(panel).collect(),
        }
    };
    let measures = measures::all(numbers);
    let names: Vec<String> = over.axes.iter().map(|axis| axis.name.clone()).collect();
    multiples::draw(&format!("By {}", list(&names)), &measures.iter().map(number).collect::<Vec<_>>())
}

fn losses(numbers: &Numbers, training: &[Training]) -> String {
    let mut panels = Vec::new();
    let shown = among(numbers, PANELS, &|i| training.iter().any(|t| t.subject == i));
    for t in training.iter().filter(|t| shown.contains(&t.subject)) {
        let (name, colour) = (numbers.subjects[t.subject].name.as_str(), t.subject);
        let mut curves = Vec::new();
        if !t.train.is_empty() {
            curves.push(Curve { name: "train".into(), colour, points: t.train.clone(), style: Style::Smoothed });
        }
        if !t.validation.is_empty() {
            curves.push(Curve {
                name: "validation".into(),
                colour,
                points: t.validation.clone(),
                style: Style::Dashed,
            });
        }
        let name = name.to_owned();
        panels.push(Panel { name: name.clone(), colour: Some(colour), y_name: "loss, nats", from_zero: false, curves });
        if !t.rate.is_empty() {
            let curves = vec![Curve { name: "rate".into(), colour, points: t.rate.clone(), style: Style::Plain }];
            let name = format!("{name}, learning rate");
            panels.push(Panel { name, colour: Some(colour), y_name: "learning rate", from_zero: true, curves });
        }
    }
    let most = if training.len() > shown.len() { PANELS } else { usize::MAX };
    let title =
        format!("Training loss (thin: each batch, thick: moving mean, dashed: validation){}", out_of(numbers, most));
    panels::draw(&title, "step", &panels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{encoders, language, plot, predictions, quantization, retrieval, timing, told};

    fn check(numbers: &Numbers, rate: Vec<(f64, f64)>, expected: &[&str]) {
        let train = (0..100).map(|i| (f64::from(i), 5.0 / f64::from(i + 1))).collect();
        let training = [Training { subject: 1, train, validation: vec![(50.0, 2.0), (99.0, 1.5)], rate }];
        let figures = all(numbers, &training);
        let names: Vec<&str> = figures.iter().map(|f| f.0.as_str()).collect();
        assert_eq!(names, expected);
        for (name, svg) in &figures {
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}: {svg}");
            assert!(plot::png(svg).unwrap().starts_with(b"\x89PNG"), "{name}");
        }
    }

    #[test]
    fn every_plot_is_drawn_and_becomes_a_png() {
        check(
            &retrieval::tests::sample(),
            vec![],
            &["recall", "difference", "size", "agreement", "confusion", "training"],
        );
        let quantization = quantization::tests::sample();
        check(&quantization, vec![], &["front", "speed", "training"]);
        check(&encoders::tests::sample(), vec![], &["front", "speed", "training"]);
        check(&told::tests::sample(), vec![], &["values", "curves", "training"]);
        let predictions = ["scores", "score-log-loss", "calibration", "confusion-1", "confusion-2", "training"];
        check(&predictions::tests::sample(), vec![], &predictions);
        check(&timing::tests::sample(1.5, &[]), vec![], &["times", "rounds", "course", "training"]);
        let by_workload = ["times", "rounds", "course"].map(|name| [1, 2, 3].map(|n| format!("{name}-{n}")));
        let by_workload = (0..3).flat_map(|n| by_workload.iter().map(move |of| of[n].as_str()));
        check(&timing::tests::models(), vec![], &by_workload.chain(["training"]).collect::<Vec<_>>());
        check(&language::tests::sample(), vec![(1.0, 1e-4), (2.0, 1e-4)], &["perplexity", "records", "training"]);
    }
}
