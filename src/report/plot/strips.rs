//! Times of many rounds, a row a subject: the medians as bars from 0 with their intervals, or every round as a point.

use super::COLOURS;
use super::canvas::{Canvas, text_width, told};
use super::scale::Axis;
use crate::measure::estimate::Estimate;
use crate::measure::summary::{quantile, sorted};
use crate::report::told::words::value_text;

/// A subject.
#[derive(Debug)]
pub struct Strip {
    /// At its left.
    pub label: String,
    /// Its place among the subjects.
    pub colour: usize,
    /// The median.
    pub estimate: Estimate,
    /// The median as it is written.
    pub text: String,
    /// Every round, at least one.
    pub values: Vec<f64>,
}

const WIDTH: f64 = 960.0;
const TOP: f64 = 40.0;

/// A frame with rows of one height over a scale.
struct Frame {
    canvas: Canvas,
    axis: Axis,
    left: f64,
    right: f64,
    row: f64,
}

impl Frame {
    fn new(title: &str, x_name: &str, rows: &[Strip], (row, ends): (f64, (f64, f64)), texts: f64) -> Self {
        let widest = rows.iter().map(|strip| text_width(&strip.label)).fold(60.0, f64::max);
        let (left, right) = (widest + 40.0, WIDTH - 24.0 - texts);
        let bottom = TOP + rows.len() as f64 * row + 6.0;
        let mut canvas = Canvas::new(title, WIDTH, bottom + 44.0);
        let axis = Axis::around(ends.0, ends.1, 9.0);
        for (value, name) in axis.ticks() {
            let x = axis.place(value, left, right);
            canvas.line((x, TOP - 4.0), (x, bottom), "g");
            canvas.text(x, bottom + 16.0, "middle", "s", &name);
        }
        canvas.line((left, bottom), (right, bottom), "a");
        canvas.text((left + right) / 2.0, bottom + 34.0, "middle", "s", x_name);
        let mut frame = Self { canvas, axis, left, right, row };
        for (i, strip) in rows.iter().enumerate() {
            let middle = frame.middle(i);
            frame.canvas.text(left - 26.0, middle + 4.0, "end", "", &strip.label);
            frame.canvas.marker(left - 14.0, middle, strip.colour, "");
        }
        frame
    }

    fn x(&self, value: f64) -> f64 {
        self.axis.place(value, self.left, self.right)
    }

    fn middle(&self, row: usize) -> f64 {
        TOP + (row as f64 + 0.5) * self.row
    }
}

/// Draws medians as bars from 0, each with its interval and its value.
pub fn bars(title: &str, x_name: &str, rows: &[Strip]) -> String {
    let high = rows.iter().map(|strip| strip.estimate.high).fold(0.0, f64::max);
    let texts = rows.iter().map(|strip| text_width(&strip.text)).fold(0.0, f64::max) + 12.0;
    let mut frame = Frame::new(title, x_name, rows, (26.0, (0.0, high)), texts);
    for (i, strip) in rows.iter().enumerate() {
        let (y, e) = (frame.middle(i), strip.estimate);
        let [zero, low, value, high] = [0.0, e.low, e.value, e.high].map(|v| frame.x(v));
        let k = strip.colour % COLOURS.len();
        frame.canvas.mark(&told(&format!("{}, {x_name}", strip.label), e), |c| {
            c.rect(zero, y - 8.0, (value - zero, 16.0), &format!("k{k} z"), 0.45);
            c.line((low, y), (high, y), "d");
            for end in [low, high] {
                c.line((end, y - 4.0), (end, y + 4.0), "d");
            }
        });
        frame.canvas.text(high + 8.0, y + 4.0, "start", "", &strip.text);
    }
    frame.canvas.end()
}

/// Draws every round as a point, the middle half as a box and the median as a line. What is far off, as when a round was held
/// up, is only counted: the scale is for the others.
pub fn strips(title: &str, x_name: &str, rows: &[Strip]) -> String {
    let of = |strip: &Strip| {
        let values = sorted(&strip.values);
        [0.0, 0.05, 0.25, 0.5, 0.75, 0.95].map(|share| quantile(&values, share))
    };
    let low = rows.iter().map(|strip| of(strip)[0]).fold(f64::INFINITY, f64::min);
    let reach = |[_, p5, .., p95]: [f64; 6]| p95 + 1.5 * (p95 - p5);
    let most = rows.iter().map(|strip| reach(of(strip))).fold(0.0, f64::max);
    let high = rows.iter().flat_map(|strip| &strip.values).copied().filter(|v| *v <= most).fold(low, f64::max);
    let mut frame = Frame::new(title, x_name, rows, (44.0, (low, high)), 64.0);
    for (i, strip) in rows.iter().enumerate() {
        let (y, k) = (frame.middle(i), strip.colour % COLOURS.len());
        let (shown, beyond): (Vec<f64>, Vec<f64>) = strip.values.iter().partition(|value| **value <= high);
        for (n, value) in shown.iter().enumerate() {
            // Up and down by the golden ratio: points of near rounds lie apart, and no chance is in it.
            let place = (n as f64 * 0.618_034).fract() - 0.5;
            let x = frame.x(*value);
            frame.canvas.rect(x - 1.5, y + 28.0 * place - 1.5, (3.0, 3.0), &format!("k{k} z"), 0.4);
        }
        let quartiles = of(strip);
        let [_, _, p25, p50, p75, _] = quartiles.map(|value| frame.x(value));
        let [_, _, first, median, third, _] = quartiles.map(value_text);
        let says = format!(
            "{}, {x_name}: half of {} rounds from {first} to {third}, median {median}",
            strip.label,
            strip.values.len()
        );
        frame.canvas.mark(&says, |c| {
            c.rect(p25, y - 9.0, (p75 - p25, 18.0), "d", 1.0);
            c.line((p50, y - 13.0), (p50, y + 13.0), "d");
        });
        if !beyond.is_empty() {
            frame.canvas.text(WIDTH - 8.0, y + 4.0, "end", "s", &format!("{} beyond \u{2192}", beyond.len()));
        }
    }
    frame.canvas.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(values: Vec<f64>) -> Strip {
        let estimate = Estimate { value: 1.0, low: 0.9, high: 1.2 };
        Strip { label: "a < b".into(), colour: 0, estimate, text: "1 ms".into(), values }
    }

    #[test]
    fn rounds_that_were_held_up_are_counted_and_do_not_stretch_the_scale() {
        let mut values: Vec<f64> = (0..100).map(|i| 1.0 + f64::from(i) / 1000.0).collect();
        values.extend([40.0, 50.0]);
        let svg = strips("t", "time, ms", &[strip(values)]);
        assert!(svg.contains("2 beyond \u{2192}") && svg.contains(">1.10<") && !svg.contains(">50<"), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("time, ms") && !svg.contains("NaN"));
        let one = strips("t", "time, ms", &[strip(vec![1.0])]);
        assert!(!one.contains("NaN") && !one.contains("inf"), "{one}");
    }

    #[test]
    fn bars_begin_at_nothing_and_end_at_the_median() {
        let svg = bars("t", "time, ms", &[strip(vec![1.0]), strip(vec![1.0])]);
        assert!(svg.contains(">0.0<") && svg.contains(">1.2<") && svg.matches("<rect ").count() == 2, "{svg}");
    }
}
