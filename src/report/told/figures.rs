//! The plots of told numbers.

use crate::report::figures::Figure;
use crate::report::numbers::{Numbers, Subject};
use crate::report::plot::bars::{self, Bar, Bars};
use crate::report::plot::{self, Curve, Panel, Style};
use crate::report::told::words::value_text;
use crate::report::told::{Row, Told};
use crate::report::words::cut;

/// Names at the ends of curves are cut to so many characters: they stand beside the plot.
const NAME_LENGTH: usize = 24;

/// The end values as bars, and a panel of curves for each number that has any.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    if numbers.told.is_empty() {
        return Vec::new();
    }
    let mut figures = vec![("values".to_owned(), values(numbers))];
    let panels: Vec<Panel> =
        numbers.told.iter().filter(|told| told.has_curve()).map(|told| panel(numbers, told)).collect();
    if !panels.is_empty() {
        let title = "Curves (thin: each step, thick: moving mean)";
        figures.push(("curves".to_owned(), plot::panels(title, "step", &panels)));
    }
    figures
}

fn values(numbers: &Numbers) -> String {
    let bar = |(colour, (row, label)): (usize, (&Row, &String))| Bar {
        label: label.clone(),
        colour,
        value: row.value,
        text: row.value.map_or_else(|| "not told".into(), value_text),
    };
    let names: Vec<String> = numbers.subjects.iter().map(|subject| subject.name.clone()).collect();
    let groups = numbers.told.iter().map(|told| Bars {
        name: told.name.clone(),
        bars: told.rows.iter().zip(&names).enumerate().map(bar).collect(),
    });
    bars::draw("Last values, each number on a scale of its own from 0", &groups.collect::<Vec<_>>())
}

fn panel(numbers: &Numbers, told: &Told) -> Panel {
    let curves = told.rows.iter().zip(&numbers.subjects).enumerate().filter(|(_, (row, _))| row.curve.len() > 1);
    let curve = |(colour, (row, subject)): (usize, (&Row, &Subject))| Curve {
        name: cut(&subject.name, NAME_LENGTH),
        colour,
        points: row.curve.iter().map(|(step, value)| (*step as f64, *value)).collect(),
        style: Style::Smoothed,
    };
    Panel { name: told.name.clone(), colour: None, from_zero: false, curves: curves.map(curve).collect() }
}
