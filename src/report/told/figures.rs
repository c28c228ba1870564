//! The plots of told numbers.

use crate::measure::estimate::Estimate;
use crate::report::figures::Figure;
use crate::report::numbers::Numbers;
use crate::report::plot::bars::{self, Bar, Bars};
use crate::report::plot::front::{self, Front as Drawing, Point};
use crate::report::plot::panels::{self, Curve, Panel, Style};
use crate::report::shown::{PANELS, ROWS, among, out_of, shown};
use crate::report::told::words::value_text;
use crate::report::told::{Front, Row, Told};
use crate::report::words::cut;

/// Names at the ends of curves are cut to so many characters: they stand beside the plot.
const NAME_LENGTH: usize = 24;

/// The end values as bars, and a panel of curves for each number that has any.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    if numbers.told.is_empty() {
        return Vec::new();
    }
    let mut figures = vec![("values".to_owned(), values(numbers))];
    figures.extend(numbers.fronts.iter().enumerate().map(|(i, front)| (name_of(i), drawn(numbers, front))));
    let panels: Vec<Panel> =
        numbers.told.iter().filter(|told| told.has_curve()).map(|told| panel(numbers, told)).collect();
    if !panels.is_empty() {
        let title = format!("Curves (thin: each step, thick: moving mean){}", out_of(numbers, PANELS));
        figures.push(("curves".to_owned(), panels::draw(&title, "step", &panels)));
    }
    figures
}

/// What the file of a front is called.
pub fn name_of(front: usize) -> String {
    if front == 0 { "front".to_owned() } else { format!("front-{}", front + 1) }
}

fn drawn(numbers: &Numbers, front: &Front) -> String {
    let of = |name: &str| numbers.told.iter().find(|told| told.name == name).map_or(&[][..], |told| &told.rows);
    // Of very many, the first ones and those that are unbeaten.
    let named = shown(numbers, ROWS);
    let points = of(&front.across).iter().zip(of(&front.up)).enumerate().filter_map(|(i, (x, y))| {
        let on_front = front.unbeaten.contains(&x.subject);
        Some(Point {
            label: numbers.subjects[i].name.clone(),
            colour: i,
            x: x.value?,
            y: Estimate::exactly(y.value?),
            on_front,
            is_ringed: false,
            is_named: on_front || named.contains(&i),
        })
    });
    let points: Vec<Point> = points.collect();
    front::draw(&Drawing {
        title: &format!("{} against {}", front.across, front.up),
        x_name: &format!("{}; filled and joined: no other is below in both", front.across),
        x_unit: &front.across,
        y_name: &front.up,
        // There is no power of ten for what costs nothing.
        is_log: points.iter().all(|point| point.x > 0.0),
        columns: Vec::new(),
        levels: Vec::new(),
        points,
    })
}

fn values(numbers: &Numbers) -> String {
    let bar = |row: &Row, colour: usize| Bar {
        label: numbers.subjects[colour].name.clone(),
        colour,
        value: row.value,
        text: row.value.map_or_else(|| "not told".into(), value_text),
    };
    let shown = shown(numbers, ROWS);
    let groups = numbers
        .told
        .iter()
        .map(|told| Bars { name: told.name.clone(), bars: shown.iter().map(|i| bar(&told.rows[*i], *i)).collect() });
    let title = format!("Last values, each number on a scale of its own from 0{}", out_of(numbers, ROWS));
    bars::draw(&title, &groups.collect::<Vec<_>>())
}

fn panel(numbers: &Numbers, told: &Told) -> Panel {
    let curves = among(numbers, PANELS, &|i| told.rows[i].curve.len() > 1);
    let curve = |colour: usize| Curve {
        name: cut(&numbers.subjects[colour].name, NAME_LENGTH),
        colour,
        points: told.rows[colour].curve.iter().map(|(step, value)| (*step as f64, *value)).collect(),
        style: Style::Smoothed,
    };
    let curves = curves.into_iter().map(curve).collect();
    Panel { name: told.name.clone(), colour: None, y_name: "", from_zero: false, curves }
}
