//! Which plots a report has, and from which of its numbers.

use crate::report::numbers::Numbers;
use crate::report::plot::{self, Curve, Panel, Style};
use crate::report::{encoders, language, retrieval, timing, told};

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
    figures.extend(timing::figures::all(numbers));
    if !training.is_empty() {
        figures.push(("training".to_owned(), losses(numbers, training)));
    }
    figures
}

fn losses(numbers: &Numbers, training: &[Training]) -> String {
    let mut panels = Vec::new();
    for t in training {
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
        panels.push(Panel { name: name.to_owned(), colour: Some(colour), from_zero: false, curves });
        if !t.rate.is_empty() {
            let curves = vec![Curve { name: "rate".into(), colour, points: t.rate.clone(), style: Style::Plain }];
            let name = format!("{name}, learning rate");
            panels.push(Panel { name, colour: Some(colour), from_zero: true, curves });
        }
    }
    plot::panels("Training loss (thin: each batch, thick: moving mean, dashed: validation)", "step", &panels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{encoders, language, quantization, retrieval, timing, told};

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
        check(&retrieval::tests::sample(), vec![], &["recall", "difference", "size", "training"]);
        let quantization = quantization::tests::sample();
        check(&quantization, vec![], &["front", "speed", "training"]);
        check(&encoders::tests::sample(), vec![], &["front", "speed", "training"]);
        check(&told::tests::sample(), vec![], &["values", "curves", "training"]);
        check(&timing::tests::sample(1.5, &[]), vec![], &["times", "rounds", "course", "training"]);
        check(&language::tests::sample(), vec![(1.0, 1e-4), (2.0, 1e-4)], &["perplexity", "records", "training"]);
    }
}
