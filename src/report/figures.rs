//! Which plots a report has, and from which of its numbers.

use crate::measure::estimate::Estimate;
use crate::report::numbers::{Numbers, Of};
use crate::report::plot::ranked::{self, Ranked};
use crate::report::plot::{self, Curve, Panel, Style};
use crate::report::shown::{self, PANELS, ROWS, among, out_of};
use crate::report::told::Better;
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
    if !training.is_empty() {
        figures.push(("training".to_owned(), losses(numbers, training)));
    }
    figures
}

/// All subjects by their main number, where there are more than plots have rows for. Those that stand by a distance are all
/// in its own plot.
fn ranking(numbers: &Numbers) -> Option<String> {
    let by = shown::by(numbers).filter(|_| numbers.subjects.len() > ROWS && numbers.quantization.is_none())?;
    let (estimates, larger): (Vec<Option<Estimate>>, bool) = match (numbers.tests.first(), numbers.texts.first()) {
        (Some(test), _) => (test.rows.iter().map(|row| Some(row.t2i["recall@10"])).collect(), true),
        (_, Some(texts)) => (texts.rows.iter().map(|row| Some(row.perplexity)).collect(), false),
        _ if numbers.of == Of::Predictions => {
            let scored = shown::main(numbers)?;
            (scored.rows.iter().map(|row| row.estimate).collect(), !scored.is_error)
        }
        _ => {
            let told = numbers.told.iter().find(|told| told.better.is_some())?;
            let values = told.rows.iter().map(|row| row.value.map(Estimate::alone));
            (values.collect(), told.better == Some(Better::Higher))
        }
    };
    let mut order: Vec<(usize, Estimate)> =
        estimates.into_iter().enumerate().filter_map(|(i, e)| Some((i, e?))).collect();
    order.sort_by(|(_, a), (_, b)| if larger { b.value.total_cmp(&a.value) } else { a.value.total_cmp(&b.value) });
    let values: Vec<(String, Estimate)> = order.iter().map(|(i, e)| (numbers.subjects[*i].name.clone(), *e)).collect();
    let interval = if numbers.of == Of::Told { "" } else { ", with 95 % intervals" };
    Some(ranked::draw(&Ranked {
        title: &format!("All {} {}s", values.len(), numbers.noun()),
        x_name: &format!(
            "rank, 1 is the best; with its name: {}, the first {}",
            numbers.subjects[0].name,
            numbers.noun()
        ),
        y_name: &format!("{by}{interval}"),
        values: &values,
        // None where the first has no value.
        named: order.iter().position(|(i, _)| *i == 0).unwrap_or(values.len()),
    }))
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
    plot::panels(&title, "step", &panels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{encoders, language, predictions, quantization, retrieval, timing, told};

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
