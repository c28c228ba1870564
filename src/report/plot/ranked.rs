//! Very many values with their intervals, side by side in an order: what a row for each has no room for.

use super::canvas::{Canvas, text_width, told};
use super::labels::Rect;
use super::scale::Axis;
use crate::measure::estimate::Estimate;

/// Values in their order.
#[derive(Debug)]
pub struct Ranked<'a> {
    /// Above.
    pub title: &'a str,
    /// Below.
    pub x_name: &'a str,
    /// Above the scale.
    pub y_name: &'a str,
    /// In order, each with its name.
    pub values: &'a [(String, Estimate)],
    /// Which of them stands out with its sign and its name.
    pub named: usize,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = HEIGHT - 48.0;

/// Draws a point for each, in one colour: who it is its mark says.
pub fn draw(plot: &Ranked<'_>) -> String {
    // Without an interval its ends are the value.
    let ends = |e: &Estimate| if e.low < e.high { (e.low, e.high) } else { (e.value, e.value) };
    let low = plot.values.iter().map(|(_, e)| ends(e).0).fold(f64::INFINITY, f64::min);
    let high = plot.values.iter().map(|(_, e)| ends(e).1).fold(f64::NEG_INFINITY, f64::max);
    let axis = if low.is_finite() { Axis::around(low, high, 6.0) } else { Axis::around(0.0, 1.0, 6.0) };
    let y = |value: f64| axis.place(value, BOTTOM, TOP);
    let x = |at: usize| LEFT + (at as f64 + 0.5) / plot.values.len().max(1) as f64 * (RIGHT - LEFT);
    let mut c = Canvas::new(plot.title, WIDTH, HEIGHT);
    c.text(8.0, 40.0, "start", "s", plot.y_name);
    for (value, name) in axis.ticks() {
        c.line((LEFT, y(value)), (RIGHT, y(value)), "g");
        c.text(LEFT - 8.0, y(value) + 4.0, "end", "s", &name);
    }
    c.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "a");
    for rank in [1, plot.values.len()] {
        c.text(x(rank.max(1) - 1), BOTTOM + 17.0, "middle", "s", &rank.to_string());
    }
    c.text((LEFT + RIGHT) / 2.0, BOTTOM + 36.0, "middle", "s", plot.x_name);
    for (at, (name, e)) in plot.values.iter().enumerate() {
        let (low, high) = ends(e);
        c.mark(&told(&format!("{}. {name}", at + 1), *e), |c| {
            c.line((x(at), y(low)), (x(at), y(high)), "a");
            c.circle(x(at), y(e.value), 2.4, "i");
        });
    }
    if let Some((name, e)) = plot.values.get(plot.named) {
        let (px, py, w) = (x(plot.named), y(e.value), text_width(name));
        c.marker(px, py, 0, "u");
        // Where no interval is: above its own or below it, within the plot.
        let (low, high) = ends(e);
        let from = (px - w / 2.0).clamp(LEFT + 2.0, RIGHT - w);
        let crossed = |place: &Rect| {
            plot.values.iter().enumerate().any(|(at, (_, e))| {
                let (low, high) = ends(e);
                place.meets(&Rect { x: x(at) - 2.0, y: y(high) - 3.0, w: 4.0, h: y(low) - y(high) + 6.0 })
            })
        };
        let heights = [y(high) - 22.0, y(low) + 8.0, y(high) - 60.0, y(low) + 46.0, TOP, BOTTOM - 16.0];
        let places = heights.map(|y| Rect { x: from, y: y.clamp(TOP, BOTTOM - 16.0), w, h: 14.0 });
        let place = places.iter().find(|place| !crossed(place)).unwrap_or(&places[0]);
        c.line((px, py), (px, if place.y > py { place.y } else { place.y + 14.0 }), "a");
        c.text(place.x, place.y + 11.0, "start", "", name);
    }
    c.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_mark_and_one_has_its_name() {
        let values: Vec<(String, Estimate)> = (0..200)
            .map(|i| {
                (format!("m{i}"), Estimate { value: f64::from(i), low: f64::from(i) - 3.0, high: f64::from(i) + 3.0 })
            })
            .collect();
        let plot = Ranked { title: "t", x_name: "x", y_name: "y", values: &values, named: 150 };
        let svg = draw(&plot);
        assert_eq!(svg.matches("<g class=\"m\">").count(), 200);
        assert!(svg.contains("<title>1. m0: 0 (\u{2212}3 to 3)</title>") && svg.contains(">m150</text>"), "{svg}");
        assert!(!svg.contains(">m1</text>") && svg.contains(">200</text>"));
        let none = draw(&Ranked { values: &[("a".into(), Estimate::alone(2.0))], named: 0, ..plot });
        assert!(!none.contains("NaN") && !none.contains("inf") && none.contains("1. a: 2<"), "{none}");
    }
}
