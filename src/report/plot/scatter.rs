//! Points by two measures.

use super::COLOURS;
use super::canvas::{Canvas, text_width, told};
use super::labels::{CROWD, Rect};
use super::scale::Axis;
use crate::measure::estimate::Estimate;
use crate::report::told::words::value_text;

/// A point by two measures, with an interval up and down.
#[derive(Debug)]
pub struct Spot {
    /// The model.
    pub label: String,
    /// Its place among the models.
    pub colour: usize,
    /// Across.
    pub x: f64,
    /// Up.
    pub y: Estimate,
    /// Its name stands beside it, and not only in its mark.
    pub is_named: bool,
}

/// Draws points by two measures, each that is named with its label beside it where there is room.
pub fn draw(title: &str, x_name: &str, y_name: &str, spots: &[Spot]) -> String {
    let (width, height, left, top) = (960.0, 360.0, 58.0, 56.0);
    let (right, bottom) = (width - 24.0, height - 48.0);
    let axis_x = Axis::around(0.0, spots.iter().map(|s| s.x).fold(1e-3, f64::max) * 1.05, 9.0);
    let low = spots.iter().map(|s| s.y.low).fold(f64::INFINITY, f64::min);
    let high = spots.iter().map(|s| s.y.high).fold(f64::NEG_INFINITY, f64::max);
    let axis_y = if low.is_finite() { Axis::around(low, high, 6.0) } else { Axis::around(0.0, 1.0, 6.0) };
    let (x, y) = (|v: f64| axis_x.place(v, left, right), |v: f64| axis_y.place(v, bottom, top));
    let mut c = Canvas::new(title, width, height);
    for (value, name) in axis_y.ticks() {
        c.line((left, y(value)), (right, y(value)), "g");
        c.text(left - 8.0, y(value) + 4.0, "end", "s", &name);
    }
    for (value, name) in axis_x.ticks() {
        c.line((x(value), bottom), (x(value), bottom + 4.0), "a");
        c.text(x(value), bottom + 17.0, "middle", "s", &name);
    }
    c.line((left, bottom), (right, bottom), "a");
    c.text((left + right) / 2.0, bottom + 36.0, "middle", "s", x_name);
    c.text(8.0, top - 14.0, "start", "s", &format!("{y_name}, with 95 % intervals"));
    // What labels must not cover: points and their intervals first, then the labels placed before.
    let mut taken: Vec<Rect> = spots
        .iter()
        .flat_map(|s| {
            let (px, py) = (x(s.x), y(s.y.value));
            [Rect { x: px - 3.0, y: y(s.y.high), w: 6.0, h: y(s.y.low) - y(s.y.high) }, Rect::around(px, py, 7.0)]
        })
        .collect();
    for spot in spots {
        let (px, py, k) = (x(spot.x), y(spot.y.value), spot.colour % COLOURS.len());
        let (high, low) = (y(spot.y.high), y(spot.y.low));
        let says = format!("{}, {} {x_name}", told(&format!("{}, {y_name}", spot.label), spot.y), value_text(spot.x));
        c.mark(&says, |c| {
            c.line((px, high), (px, low), &format!("k{k} w"));
            for end in [high, low] {
                c.line((px - 4.0, end), (px + 4.0, end), &format!("k{k} w"));
            }
            c.marker(px, py, spot.colour, "");
        });
        if !spot.is_named {
            continue;
        }
        let w = text_width(&spot.label);
        let beside =
            [(10.0, 0.0), (-w - 10.0, 0.0), (10.0, 16.0), (-w - 10.0, 16.0), (10.0, -16.0), (-w - 10.0, -16.0)];
        let above = [(-w / 2.0, high - py - 10.0), (-w / 2.0, low - py + 10.0)];
        let places = beside.iter().chain(&above).map(|(dx, dy)| Rect { x: px + dx, y: py + dy - 7.0, w, h: 14.0 });
        let fits = |r: &Rect| r.x >= left && r.x + r.w <= width && taken.iter().all(|t| !t.meets(r));
        let Some(place) = places.clone().find(fits).or_else(|| places.clone().next().filter(|_| spots.len() <= CROWD))
        else {
            continue;
        };
        c.text(place.x, place.y + 11.0, "start", "", &spot.label);
        taken.push(place);
    }
    c.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_near_points_do_not_meet() {
        let spot = |label: &str, colour, x| Spot {
            label: label.into(),
            colour,
            x,
            y: Estimate { value: 0.5, low: 0.4, high: 0.6 },
            is_named: true,
        };
        let svg = draw("t", "x", "y", &[spot("emoji-clip", 0, 120.0), spot("emoji-clip-lora", 1, 132.0)]);
        let place = |label: &str| {
            let before = svg[..svg.find(&format!(">{label}<")).unwrap()].rsplit("<text ").next().unwrap().to_owned();
            let number = |key: &str| {
                let from = before.find(key).unwrap() + key.len();
                before[from..].split('"').next().unwrap().parse::<f64>().unwrap()
            };
            Rect { x: number("x=\""), y: number("y=\""), w: text_width(label), h: 14.0 }
        };
        assert!(!place("emoji-clip").meets(&place("emoji-clip-lora")), "{svg}");
    }
}
