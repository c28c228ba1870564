//! Where models stand by their distance: size, and where it was measured speed, against it.

use crate::report::figures::Figure;
use crate::report::numbers::{Numbers, SPEED, Subject};
use crate::report::plot::front::{self, Front, Point};
use crate::report::quantization::words::megabytes;
use crate::report::quantization::{Quantization, nearer_and_nearer};
use crate::report::shown::{PANELS, ROWS, shown};

/// How the plots call what they show.
#[derive(Debug)]
pub struct Axes<'a> {
    /// The distance, in the titles: "divergence".
    pub distance: &'a str,
    /// The distance, above its scale.
    pub y_name: &'a str,
    /// Distances with a level line, and what they are called.
    pub levels: Vec<(f64, String)>,
    /// The key of `speed.json` that says how quick a model is, and how that is called; none where it is not known.
    pub speed: Option<(&'a str, &'a str)>,
}

/// The fronts.
pub fn fronts(numbers: &Numbers, found: &Quantization, axes: &Axes<'_>) -> Vec<Figure> {
    // Of very many, the first and the nearest, what is recommended, and a front that is short.
    let named = shown(numbers, if numbers.subjects.len() > ROWS { PANELS } else { ROWS });
    let points = |x: &dyn Fn(&Subject) -> f64, on_front: &[usize]| -> Vec<Point> {
        let point = |(i, (subject, distance)): (usize, (&Subject, &_))| Point {
            label: subject.name.clone(),
            colour: i,
            x: x(subject),
            y: *distance,
            on_front: on_front.contains(&i),
            is_ringed: found.takes(&subject.label),
            is_named: named.contains(&i)
                || found.takes(&subject.label)
                || (on_front.len() <= PANELS && on_front.contains(&i)),
        };
        numbers.subjects.iter().zip(&found.distances).enumerate().map(point).collect()
    };
    let places = |labels: &[String]| -> Vec<usize> {
        labels.iter().filter_map(|label| numbers.subjects.iter().position(|s| s.label == *label)).collect()
    };
    let columns = found.limits.iter().filter_map(|r| r.limit.bytes);
    let title = format!("Size against {}", axes.distance);
    let mut plot = Front {
        title: &title,
        x_name: "MB on disk; filled and joined: nearer than every smaller model; ringed: recommended; dashed: limits",
        x_unit: "MB",
        y_name: axes.y_name,
        is_log: true,
        columns: columns.map(|bytes| (bytes as f64 / 1e6, format!("{} MB", megabytes(bytes)))).collect(),
        levels: axes.levels.clone(),
        points: points(&Subject::megabytes, &places(&found.front)),
    };
    let mut figures = vec![("front".to_owned(), front::draw(&plot))];
    if let Some((key, name)) = axes.speed.filter(|_| numbers.has(SPEED)) {
        let speed = |s: &Subject| s.speed(key);
        let title = format!("Speed against {}", axes.distance);
        let x_name = format!("{name}; filled and joined: nearer than every faster model; ringed: recommended");
        plot = Front {
            title: &title,
            x_name: &x_name,
            x_unit: name,
            is_log: false,
            columns: Vec::new(),
            points: points(&speed, &fastest(numbers, found, &speed)),
            ..plot
        };
        figures.push(("speed".to_owned(), front::draw(&plot)));
    }
    figures
}

/// The models that are nearer to the original than every faster one, without the original, the fastest first.
fn fastest(numbers: &Numbers, found: &Quantization, speed: &dyn Fn(&Subject) -> f64) -> Vec<usize> {
    let distance = |i: usize| found.distances[i].value;
    let of = |i: usize| speed(&numbers.subjects[i]);
    let mut order: Vec<usize> = (0..numbers.subjects.len()).collect();
    order.sort_by(|a, b| of(*b).total_cmp(&of(*a)).then(distance(*a).total_cmp(&distance(*b))));
    nearer_and_nearer(order, &distance)
}
