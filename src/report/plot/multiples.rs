//! Small multiples: one number over the axes of a matrix, in panels of one scale, so that panels compare. Tufte, "The visual
//! display of quantitative information", 1983.

use super::COLOURS;
use super::canvas::{Canvas, text_width, told};
use super::labels::{lift, spread};
use super::scale::{Axis, Powers};
use crate::measure::estimate::Estimate;

/// A number in panels.
#[derive(Debug)]
pub struct Multiples<'a> {
    /// The number.
    pub name: String,
    /// Below each panel: the axis that goes across.
    pub x_name: &'a str,
    /// The values of that axis, evenly apart.
    pub x_values: &'a [String],
    /// At least one.
    pub panels: Vec<Panel>,
}

/// The points of a panel.
#[derive(Debug)]
pub struct Panel {
    /// The values of the axes that differ between panels; empty where there is one panel.
    pub name: String,
    /// One for each value of the axis that lines stand for.
    pub lines: Vec<Line>,
}

/// Points that a line joins.
#[derive(Debug)]
pub struct Line {
    /// At its end; empty where there is one line.
    pub name: String,
    /// The value's place on its axis.
    pub colour: usize,
    /// By their place on the axis that goes across.
    pub points: Vec<Point>,
}

/// One subject.
#[derive(Debug)]
pub struct Point {
    /// The subject.
    pub label: String,
    /// Its place across.
    pub x: usize,
    /// How high.
    pub y: Estimate,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 208.0;
const TOP: f64 = 36.0;
/// Values so many times as high as others stand on a scale of powers of ten.
const FAR: f64 = 50.0;

enum Scale {
    Even(Axis),
    Powers(Powers),
}

impl Scale {
    fn around(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = values.clone().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        match low > high {
            true => Self::Even(Axis::around(0.0, 1.0, 4.0)),
            false if low > 0.0 && high > FAR * low => Self::Powers(Powers::around(values)),
            false => Self::Even(Axis::around(low, high, 4.0)),
        }
    }

    fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        match self {
            Self::Even(axis) => axis.place(value, from, to),
            Self::Powers(powers) => powers.place(value.max(powers.lowest()), from, to),
        }
    }

    /// Each level of it, and its name.
    fn levels(&self) -> Vec<(f64, Level)> {
        match self {
            Self::Even(axis) => axis.ticks().map(|(value, name)| (value, Level::Name(name))).collect(),
            Self::Powers(powers) => {
                (powers.low..=powers.high).map(|power| (10f64.powi(power), Level::Power(power))).collect()
            }
        }
    }
}

enum Level {
    Name(String),
    Power(i32),
}

/// Draws each number below the last, its panels beside each other.
pub fn draw(title: &str, numbers: &[Multiples<'_>]) -> String {
    let rows = |number: &Multiples<'_>| number.panels.len().div_ceil(columns(number)) as f64;
    let height: f64 = numbers.iter().map(|number| 24.0 + HEIGHT * rows(number)).sum();
    let mut c = Canvas::new(title, WIDTH, TOP + height);
    let mut y = TOP;
    for number in numbers {
        c.text(8.0, y + 14.0, "start", "t", &number.name);
        let points = number.panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
        let scale = Scale::around(points.flat_map(|point| [point.y.value, point.y.low, point.y.high]));
        let width = WIDTH / columns(number) as f64;
        for (i, panel) in number.panels.iter().enumerate() {
            let (column, row) = (i % columns(number), i / columns(number));
            let at = (width * column as f64, y + 24.0 + HEIGHT * row as f64);
            draw_panel(&mut c, number, panel, &scale, at, width);
        }
        y += 24.0 + HEIGHT * rows(number);
    }
    c.end()
}

/// Panels side by side: names at the ends of lines have room in each.
fn columns(number: &Multiples<'_>) -> usize {
    number.panels.len().clamp(1, 3)
}

fn draw_panel(c: &mut Canvas, number: &Multiples<'_>, panel: &Panel, scale: &Scale, (x0, y0): (f64, f64), width: f64) {
    let levels = scale.levels();
    let widest = levels.iter().map(|(_, level)| match level {
        Level::Name(name) => text_width(name),
        Level::Power(_) => 30.0,
    });
    let names = panel.lines.iter().map(|line| text_width(&line.name) + 28.0).fold(20.0, f64::max);
    let (left, right) = (x0 + 18.0 + widest.fold(24.0, f64::max), x0 + width - names);
    let (top, bottom) = (y0 + 24.0, y0 + HEIGHT - 44.0);
    let n = number.x_values.len();
    let across = |place: usize| left + (place as f64 + 0.5) / n as f64 * (right - left);
    let up = |value: f64| scale.place(value, bottom, top);
    c.text(left, y0 + 12.0, "start", "s", &panel.name);
    for (value, level) in &levels {
        let y = up(*value);
        c.line((left, y), (right, y), "g");
        match level {
            Level::Name(name) => c.text(left - 8.0, y + 4.0, "end", "s", name),
            Level::Power(power) => c.power(left - 8.0, y + 4.0, *power),
        }
    }
    // Values that would touch each other are written below every second one, or third.
    let room = number.x_values.iter().map(|value| text_width(value)).fold(0.0, f64::max) + 8.0;
    let every = (room * n as f64 / (right - left)).ceil().max(1.0) as usize;
    for (place, value) in number.x_values.iter().enumerate() {
        c.line((across(place), bottom), (across(place), bottom + 4.0), "a");
        if place % every == 0 {
            c.text(across(place), bottom + 17.0, "middle", "s", value);
        }
    }
    c.line((left, bottom), (right, bottom), "a");
    c.text((left + right) / 2.0, bottom + 34.0, "middle", "s", number.x_name);
    let mut ends = Vec::new();
    for (i, line) in panel.lines.iter().enumerate() {
        let k = line.colour % COLOURS.len();
        // Points of one place stand beside each other, so that their intervals can be told apart.
        let aside = (i as f64 - (panel.lines.len() as f64 - 1.0) / 2.0) * 5.0;
        let at = |point: &Point| (across(point.x) + aside, up(point.y.value));
        c.path(&line.points.iter().map(at).collect::<Vec<_>>(), &format!("k{k} n w"));
        for point in &line.points {
            let (x, y) = at(point);
            c.mark(&told(&format!("{}, {}", point.label, number.name), point.y), |c| {
                if point.y.low < point.y.high {
                    c.line((x, up(point.y.high)), (x, up(point.y.low)), &format!("k{k} w"));
                }
                c.marker(x, y, line.colour, "");
            });
        }
        ends.extend(line.points.last().map(|point| (at(point), line)));
    }
    let mut heights = spread(&ends.iter().map(|(at, _)| at.1).collect::<Vec<_>>(), 14.0);
    lift(&mut heights, 14.0, bottom - 2.0);
    for (((x, _), line), y) in ends.into_iter().zip(heights).filter(|((_, line), _)| !line.name.is_empty()) {
        let x = x.max(right - 12.0);
        c.marker(x + 10.0, y, line.colour, "");
        c.text(x + 20.0, y + 4.0, "start", "s", &line.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot::png;

    fn line(name: &str, colour: usize, values: &[f64]) -> Line {
        let point = |(x, y): (usize, &f64)| Point {
            label: format!("{name} {x}"),
            x,
            y: Estimate { value: *y, low: 0.9 * y, high: 1.1 * y },
        };
        Line { name: name.into(), colour, points: values.iter().enumerate().map(point).collect() }
    }

    fn number(values: &[f64]) -> String {
        let x_values = ["2", "4", "8"].map(str::to_owned);
        let panel =
            |name: &str| Panel { name: name.into(), lines: vec![line("rtn", 0, values), line("<awq>", 1, values)] };
        let panels = vec![panel("group 32"), panel("group 64")];
        draw("t", &[Multiples { name: "perplexity".into(), x_name: "bits", x_values: &x_values, panels }])
    }

    #[test]
    fn panels_share_a_scale_and_every_point_says_whose_it_is() {
        let svg = number(&[0.5, 0.25, 0.75]);
        assert_eq!(svg.matches("class=\"m\"").count(), 12, "{svg}");
        assert_eq!(svg.matches(">0.4</text>").count(), 2, "{svg}");
        assert!(svg.contains("&lt;awq&gt; 2, perplexity: 0.7500 (0.6750 to 0.8250)") && svg.contains(">group 64<"));
        assert!(png(&svg).unwrap().starts_with(b"\x89PNG"));
    }

    #[test]
    fn values_far_apart_stand_on_powers_of_ten() {
        let svg = number(&[1e4, 30.0, 20.0]);
        assert!(svg.contains(">10</text>") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
