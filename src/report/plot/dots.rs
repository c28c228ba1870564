//! Points with intervals, one group of rows a test, over one scale.

use super::COLOURS;
use super::canvas::{Canvas, text_width, told};
use super::scale::Axis;
use crate::measure::estimate::Estimate;

/// Rows of points with intervals.
#[derive(Debug)]
pub struct Dots<'a> {
    /// Above.
    pub title: &'a str,
    /// Below the scale.
    pub x_name: &'a str,
    /// What the dashed line of each group is.
    pub line_name: &'a str,
    /// The rows.
    pub groups: &'a [Group],
}

/// The rows of a test.
#[derive(Debug)]
pub struct Group {
    /// The test.
    pub name: String,
    /// Where its dashed line is: chance, or no difference.
    pub line: f64,
    /// One a model.
    pub marks: Vec<Mark>,
}

/// A point with its interval.
#[derive(Debug)]
pub struct Mark {
    /// The model.
    pub label: String,
    /// Its place among the models.
    pub colour: usize,
    /// Where.
    pub estimate: Estimate,
    /// Written at the end of its row.
    pub text: String,
    /// 1 for a triangle up, -1 for one down.
    pub sign: i8,
    /// Not filled.
    pub hollow: bool,
}

/// Draws rows of points with intervals, one group of rows a test, over one scale.
pub fn draw(plot: &Dots<'_>) -> String {
    let marks = || plot.groups.iter().flat_map(|g| &g.marks);
    let (width, row, gap) = (960.0, 21.0, 12.0);
    let widest = marks().map(|m| text_width(&m.label)).fold(60.0, f64::max);
    let (left, right) = (widest + 32.0, width - 84.0);
    let top = 48.0;
    let rows: f64 = plot.groups.iter().map(|g| (g.marks.len() + 1) as f64 * row + gap).sum();
    let bottom = top + rows;
    let low = marks().map(|m| m.estimate.low).chain(plot.groups.iter().map(|g| g.line)).fold(0.0, f64::min);
    let high = marks().map(|m| m.estimate.high).chain(plot.groups.iter().map(|g| g.line)).fold(0.0, f64::max);
    let axis = Axis::around(low, high, 9.0);
    let x = |v: f64| axis.place(v, left, right);
    let mut c = Canvas::new(plot.title, width, bottom + 44.0);
    for (value, name) in axis.ticks() {
        c.line((x(value), top - 6.0), (x(value), bottom), "g");
        c.text(x(value), bottom + 16.0, "middle", "s", &name);
    }
    c.line((left, bottom), (right, bottom), "a");
    c.text((left + right) / 2.0, bottom + 34.0, "middle", "s", plot.x_name);
    let legend = right - text_width(plot.line_name);
    c.line((legend - 30.0, 29.0), (legend - 6.0, 29.0), "c");
    c.text(legend, 33.0, "start", "s", plot.line_name);
    let mut y = top;
    for group in plot.groups {
        c.text(8.0, y + 13.0, "start", "t", &group.name);
        let end = y + (group.marks.len() + 1) as f64 * row;
        y += row;
        c.line((x(group.line), y), (x(group.line), end), "c");
        for mark in &group.marks {
            let (m, e) = (y + row / 2.0, mark.estimate);
            c.text(left - 14.0, m + 4.0, "end", "", &mark.label);
            c.mark(&told(&format!("{}, {}", mark.label, group.name), e), |c| {
                c.line((x(e.low), m), (x(e.high), m), &format!("k{} w", mark.colour % COLOURS.len()));
                c.marker(x(e.value), m, mark.colour, if mark.hollow { "o w" } else { "" });
            });
            c.text(width - 30.0, m + 4.0, "end", "", &mark.text);
            c.sign(width - 16.0, m, mark.sign);
            y += row;
        }
        y += gap;
    }
    c.end()
}
