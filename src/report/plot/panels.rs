//! Curves in panels, each panel with scales of its own.

use super::COLOURS;
use super::canvas::{Canvas, text_width};
use super::labels::{lift, spread};
use super::scale::Axis;
use crate::report::told::words::value_text;

/// A panel of curves: one model's, or one number's.
#[derive(Debug)]
pub struct Panel {
    /// The model or the number.
    pub name: String,
    /// A model's place among the models: its sign stands before its name.
    pub colour: Option<usize>,
    /// What goes up, above the scale; empty where the name says it.
    pub y_name: &'static str,
    /// The scale begins at 0.
    pub from_zero: bool,
    /// Its curves.
    pub curves: Vec<Curve>,
}

/// A curve.
#[derive(Debug)]
pub struct Curve {
    /// Written at its end.
    pub name: String,
    /// Its model's place among the models.
    pub colour: usize,
    /// In order.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: Style,
}

/// How a curve is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Thin, with its moving mean over it.
    Smoothed,
    /// As it is.
    Plain,
    /// As it is, dashed.
    Dashed,
}

/// What is left free at the right of a panel for the names of its curves.
const NAMES_WIDTH: f64 = 76.0;

/// Draws panels of curves, two in a row, each with its own scales: losses of other batch sizes do not compare.
pub fn draw(title: &str, x_name: &str, panels: &[Panel]) -> String {
    let (width, panel_height, columns) = (960.0, 284.0, panels.len().clamp(1, 2));
    let panel_width = width / columns as f64;
    let mut c = Canvas::new(title, width, 36.0 + panel_height * panels.len().div_ceil(columns) as f64);
    for (i, panel) in panels.iter().enumerate() {
        let (x0, y0) = ((i % columns) as f64 * panel_width, 36.0 + (i / columns) as f64 * panel_height);
        // Where curves are of several models, each name has its model's sign before it.
        let sign = if panel.colour.is_some() { 0.0 } else { 14.0 };
        let names = panel.curves.iter().map(|k| text_width(&k.name) + 10.0 + sign).fold(NAMES_WIDTH, f64::max);
        let (right, top, bottom) = (x0 + panel_width - names, y0 + 46.0, y0 + panel_height - 46.0);
        let all = || panel.curves.iter().flat_map(|k| &k.points);
        let (low, high) = all().fold((f64::INFINITY, 0f64), |(l, h), p| (l.min(p.1), h.max(p.1)));
        let axis_y = Axis::around(if low.is_finite() && !panel.from_zero { low } else { 0.0 }, high, 5.0);
        let axis_x = Axis::around(0.0, all().map(|p| p.0).fold(1.0, f64::max), 6.0);
        let ticks = axis_y.ticks().map(|(_, name)| text_width(&name)).fold(26.0, f64::max);
        let left = x0 + 24.0 + ticks;
        let at = |p: &(f64, f64)| (axis_x.place(p.0, left, right), axis_y.place(p.1, bottom, top));
        if let Some(colour) = panel.colour {
            c.marker(x0 + 14.0, y0 + 11.0, colour, "");
        }
        let title = if panel.colour.is_some() { x0 + 26.0 } else { x0 + 8.0 };
        c.text(title, y0 + 15.0, "start", "t", &panel.name);
        c.text(x0 + 8.0, y0 + 31.0, "start", "s", panel.y_name);
        for (value, name) in axis_y.ticks() {
            let y = axis_y.place(value, bottom, top);
            c.line((left, y), (right, y), "g");
            c.text(left - 8.0, y + 4.0, "end", "s", &name);
        }
        for (value, name) in axis_x.ticks() {
            let x = axis_x.place(value, left, right);
            c.line((x, bottom), (x, bottom + 4.0), "a");
            c.text(x, bottom + 17.0, "middle", "s", &name);
        }
        c.line((left, bottom), (right, bottom), "a");
        c.text((left + right) / 2.0, bottom + 34.0, "middle", "s", x_name);
        let mut ends = Vec::new();
        for curve in &panel.curves {
            let k = curve.colour % COLOURS.len();
            let is_smoothed = curve.style == Style::Smoothed;
            let smooth = if is_smoothed { moving_mean(&curve.points) } else { curve.points.clone() };
            let path = |points: &[(f64, f64)]| points.iter().map(at).collect::<Vec<_>>();
            let says = curve.points.last().map_or_else(String::new, |(step, value)| {
                format!("{}, {}: {} at {step}", panel.name, curve.name, value_text(*value))
            });
            c.mark(&says, |c| {
                if is_smoothed {
                    c.path(&path(&thinned(&curve.points)), &format!("k{k} n r"));
                }
                let dashes = if curve.style == Style::Dashed { " v" } else { "" };
                c.path(&path(&thinned(&smooth)), &format!("k{k} n w{dashes}"));
            });
            ends.push(smooth.last().map_or((left, bottom), at));
        }
        let mut heights = spread(&ends.iter().map(|e| e.1).collect::<Vec<_>>(), 14.0);
        if panel.colour.is_none() {
            lift(&mut heights, 14.0, bottom - 4.0);
        }
        for ((end, y), curve) in ends.iter().zip(heights).zip(&panel.curves) {
            let x = end.0.max(left) + 6.0;
            if panel.colour.is_none() {
                c.marker(x + 6.0, y, curve.colour, "");
            }
            c.text(x + sign, y + 4.0, "start", "", &curve.name);
        }
    }
    c.end()
}

/// The mean of each point and its neighbours, a fortieth of all to each side.
fn moving_mean(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 40;
    (0..points.len())
        .map(|i| {
            let near = &points[i.saturating_sub(reach)..(i + reach + 1).min(points.len())];
            (points[i].0, near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64)
        })
        .collect()
}

/// Points that a curve is drawn by, at most: more than two a pixel are not seen.
const POINTS: usize = 800;

/// A curve by fewer points: of each stretch its lowest and its highest, so that no peak is lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(POINTS / 2);
    let ends = |(i, part): (usize, &[(f64, f64)])| {
        let by = |a: &usize, b: &usize| part[*a].1.total_cmp(&part[*b].1);
        let (low, high) = ((0..part.len()).min_by(by).unwrap_or(0), (0..part.len()).max_by(by).unwrap_or(0));
        let mut kept = vec![low.min(high), low.max(high)];
        // The curve begins and ends where it did.
        if i == 0 {
            kept.insert(0, 0);
        }
        if (i + 1) * stretch >= points.len() {
            kept.push(part.len() - 1);
        }
        kept.dedup();
        kept.into_iter().map(|at| part[at]).collect::<Vec<_>>()
    };
    points.chunks(stretch).enumerate().flat_map(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moving_mean_keeps_a_line_and_smooths_a_saw() {
        let line: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), f64::from(i))).collect();
        assert_eq!(moving_mean(&line)[100], (100.0, 100.0));
        let saw: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!((moving_mean(&saw)[100].1 - 0.5).abs() < 0.05);
        assert_eq!(moving_mean(&saw[..10]), saw[..10], "too few to smooth");
    }

    #[test]
    fn a_long_curve_keeps_its_peaks_and_its_ends() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0 / f64::from(i + 1))).collect();
        points[54_321].1 = 7.0;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS + 2 && thin.contains(&(54_321.0, 7.0)), "{}", thin.len());
        assert_eq!((thin.first(), thin.last()), (points.first(), points.last()));
        assert!(thin.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thinned(&points[..POINTS]), points[..POINTS]);
    }
}
