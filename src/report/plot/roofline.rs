//! What was reached of what a machine can do: Williams, Waterman and Patterson, "Roofline: an insightful visual performance
//! model", 2009. Below the slope the memory is what one waits for, below a level what computes.

use super::canvas::{Canvas, text_width};
use super::labels::{CROWD, Labels, Rect, is_free};
use super::scale::Powers;

/// A machine and what was measured on it.
#[derive(Debug)]
pub struct Roofline<'a> {
    /// Above.
    pub title: &'a str,
    /// Bytes of memory read a second.
    pub bandwidth: f64,
    /// Rates of operations a second, each with its name.
    pub levels: &'a [(String, f64)],
    /// What was measured.
    pub points: &'a [Point],
}

/// One measurement.
#[derive(Debug)]
pub struct Point {
    /// What it is of, where it is pointed at.
    pub name: String,
    /// Beside it; nothing where there is no room.
    pub label: String,
    /// Its place among the models.
    pub colour: usize,
    /// Operations for each byte of memory that has to be read.
    pub intensity: f64,
    /// Operations a second.
    pub rate: f64,
    /// Not filled.
    pub hollow: bool,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 66.0;
const BOTTOM: f64 = HEIGHT - 52.0;

/// Draws the roof and the points under it, both scales logarithmic.
pub fn draw(plot: &Roofline<'_>) -> String {
    let mut c = Canvas::new(plot.title, WIDTH, HEIGHT);
    let highest = plot.levels.iter().map(|level| level.1).fold(0.0, f64::max);
    // So far that the slope meets the highest level within the picture.
    let ridge = highest / plot.bandwidth;
    let across = Powers::around(plot.points.iter().map(|p| p.intensity).chain([ridge, 0.5]));
    let x = |intensity: f64| across.place(intensity, LEFT, RIGHT);
    let lowest = plot.points.iter().map(|p| p.rate).fold(highest, f64::min);
    // Below the lowest there is room for its name.
    let up = Powers::around([lowest / 2e9, highest / 1e9].into_iter());
    let y = |rate: f64| up.place(rate / 1e9, BOTTOM, TOP);
    for power in up.low..=up.high {
        let at = y(1e9 * 10f64.powi(power));
        c.line((LEFT, at), (RIGHT, at), "g");
        c.power(LEFT - 8.0, at + 4.0, power);
    }
    for power in across.low..=across.high {
        let at = x(10f64.powi(power));
        c.line((at, BOTTOM), (at, BOTTOM + 4.0), "a");
        c.power(at + 8.0, BOTTOM + 18.0, power);
    }
    c.line((LEFT, BOTTOM), (RIGHT, BOTTOM), "a");
    c.text((LEFT + RIGHT) / 2.0, BOTTOM + 38.0, "middle", "s", "operations for each byte of weights that is read");
    c.text(8.0, 42.0, "start", "s", "thousand million operations a second");
    let mut labels = Labels::within(Rect { x: LEFT, y: TOP - 10.0, w: WIDTH - 2.0 - LEFT, h: BOTTOM - TOP + 6.0 });
    // The slope, from where it enters the picture to the highest level.
    let least = up.lowest() * 1e9;
    let start = across.lowest().max(least / plot.bandwidth);
    let roof = |intensity: f64| (x(intensity), y(intensity * plot.bandwidth));
    c.path(&[roof(start), roof(ridge)], "n a w");
    labels.avoid_line(&[roof(start), roof(ridge)]);
    let (middle, name) = (roof((start * ridge).sqrt()), format!("memory, {:.1} GB/s", plot.bandwidth / 1e9));
    let w = text_width(&name);
    c.text(middle.0 - 10.0, middle.1 - 4.0, "end", "s", &name);
    labels.names.push(Rect { x: middle.0 - 10.0 - w, y: middle.1 - 16.0, w, h: 14.0 });
    for (name, level) in plot.levels {
        let (from, at) = (roof(level / plot.bandwidth), y(*level));
        c.line(from, (RIGHT, at), "a w");
        labels.lines.push(Rect { x: from.0, y: at - 1.0, w: RIGHT - from.0, h: 2.0 });
        let text = format!("{name}, {:.0}", level / 1e9);
        let w = text_width(&text);
        // Above its line, or where that of a rate that is all but the same has its name, before that.
        let own = |end: f64| Rect { x: end - w, y: at - 16.0, w, h: 12.0 };
        let ends = labels.names.iter().rev().map(|name| name.x - 12.0);
        let place = std::iter::once(RIGHT).chain(ends).map(own).find(|place| is_free(&labels.names, place));
        let place = place.unwrap_or_else(|| own(RIGHT));
        c.text(place.x + w, at - 5.0, "end", "s", &text);
        labels.names.push(place);
    }
    for point in plot.points {
        let (px, py) = (x(point.intensity), y(point.rate));
        let says = format!(
            "{}: {:.1} thousand million operations a second, {:.2} for each byte",
            point.name,
            point.rate / 1e9,
            point.intensity
        );
        c.mark(&says, |c| c.marker(px, py, point.colour, if point.hollow { "o w" } else { "" }));
        labels.points.push(Rect::around(px, py, 6.0));
        labels.marks.push((px, py));
    }
    for point in plot.points.iter().filter(|point| !point.label.is_empty()) {
        labels.name(&mut c, (x(point.intensity), y(point.rate)), 10.0, &point.label, plot.points.len() > CROWD);
    }
    c.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_are_all_but_the_same_have_names_beside_one_another() {
        let levels =
            [("f32 GFLOP/s", 31e9), ("int8 GFLOP/s", 32e9), ("f16 GFLOP/s", 30e9)].map(|(n, l)| (n.to_owned(), l));
        let svg = draw(&Roofline { title: "t", bandwidth: 10e9, levels: &levels, points: &[] });
        let ends = ["f32 GFLOP/s, 31", "int8 GFLOP/s, 32", "f16 GFLOP/s, 30"].map(|name| {
            let end = svg.find(&format!(">{name}<")).expect("it has its name");
            let tag = svg[..end].rsplit("<text ").next().expect("a text");
            let x = tag.split("x=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a place");
            (x.parse::<f64>().expect("a number"), text_width(name))
        });
        for (i, (end, width)) in ends.iter().enumerate() {
            for (other, own) in &ends[i + 1..] {
                assert!((end - other).abs() >= width.min(*own), "{ends:?}");
            }
        }
    }
}
