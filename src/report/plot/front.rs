//! Models by what they cost and how far they are from the one they were made of: a Pareto front, with every point named.
//!
//! Distances span many powers of ten, so they stand on a logarithmic scale, with a place of its own for 0 below it.

use super::COLOURS;
use super::canvas::{Canvas, text_width, told};
use super::labels::{CROWD, Labels, Rect, is_free};
use super::scale::{Axis, Powers};
use crate::measure::estimate::Estimate;
use crate::report::told::words::value_text;

/// Points by a cost and a distance.
#[derive(Debug)]
pub struct Front<'a> {
    /// Above.
    pub title: &'a str,
    /// Below the scale.
    pub x_name: &'a str,
    /// What costs are counted in: "MB".
    pub x_unit: &'a str,
    /// Above the other scale.
    pub y_name: &'a str,
    /// Costs may differ by so much that their scale is logarithmic where they do.
    pub is_log: bool,
    /// Costs with an upright line: limits, and what they are called.
    pub columns: Vec<(f64, String)>,
    /// Distances with a level line: limits, and what they are called.
    pub levels: Vec<(f64, String)>,
    /// The models.
    pub points: Vec<Point>,
}

/// A model.
#[derive(Debug)]
pub struct Point {
    /// Its name.
    pub label: String,
    /// Its place among the models.
    pub colour: usize,
    /// What it costs.
    pub x: f64,
    /// How far it is; 0 is below the scale.
    pub y: Estimate,
    /// Filled, and joined by a line with the others that are.
    pub on_front: bool,
    /// With a ring around it.
    pub is_ringed: bool,
    /// Its name stands beside it, and not only in its mark.
    pub is_named: bool,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 470.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 78.0;
/// Where 0 is.
const ZERO: f64 = HEIGHT - 62.0;
/// Where the logarithmic scale ends.
const BOTTOM: f64 = ZERO - 30.0;

/// Draws the points, the front as a line, limits dashed.
pub fn draw(plot: &Front<'_>) -> String {
    let mut c = Canvas::new(plot.title, WIDTH, HEIGHT);
    let scale_x = Across::of(plot);
    let scale_y = powers_around(plot);
    let at = |p: &Point| (scale_x.place(p.x), height(&scale_y, p.y.value));
    for power in scale_y.low..=scale_y.high {
        let y = height(&scale_y, 10f64.powi(power));
        c.line((LEFT, y), (RIGHT, y), "g");
        c.power(LEFT - 8.0, y + 4.0, power);
    }
    c.line((LEFT, ZERO), (RIGHT, ZERO), "g");
    c.text(LEFT - 8.0, ZERO + 4.0, "end", "s", "0");
    let foot = ZERO + 12.0;
    for (value, name) in scale_x.ticks() {
        c.line((scale_x.place(value), foot), (scale_x.place(value), foot + 4.0), "a");
        c.text(scale_x.place(value), foot + 17.0, "middle", "s", &name);
    }
    c.line((LEFT, foot), (RIGHT, foot), "a");
    c.text((LEFT + RIGHT) / 2.0, foot + 36.0, "middle", "s", plot.x_name);
    c.text(8.0, 40.0, "start", "s", plot.y_name);
    let mut labels = Labels::within(Rect { x: LEFT, y: TOP - 10.0, w: WIDTH - 2.0 - LEFT, h: ZERO + 21.0 - TOP });
    limits(&mut labels, &mut c, plot, &scale_x, &scale_y, foot);
    let mut front: Vec<(f64, f64)> = plot.points.iter().filter(|p| p.on_front).map(at).collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0));
    c.path(&front, "n a w");
    labels.avoid_line(&front);
    for point in &plot.points {
        let ((x, y), k) = (at(point), point.colour % COLOURS.len());
        let says = format!("{}; {} {}", told(&point.label, point.y), value_text(point.x), plot.x_unit);
        c.mark(&says, |c| {
            if point.y.value > 0.0 {
                let [high, low] = [point.y.high, point.y.low].map(|v| height(&scale_y, v.max(scale_y.lowest())));
                c.line((x, high), (x, low), &format!("k{k} w"));
                labels.points.push(Rect { x: x - 2.0, y: high, w: 4.0, h: low - high });
            }
            c.marker(x, y, point.colour, if point.on_front || point.y.value <= 0.0 { "" } else { "o w" });
            if point.is_ringed {
                c.circle(x, y, 10.0, "d u");
            }
        });
        labels.points.push(Rect::around(x, y, reach_of(point)));
        labels.marks.push((x, y));
    }
    // Where it is narrow there are few places: those are given first.
    let near = |p: &Point| {
        let (x, y) = at(p);
        plot.points.iter().filter(|q| (at(q).0 - x).abs() < 110.0 && (at(q).1 - y).abs() < 40.0).count()
    };
    let mut order: Vec<&Point> = plot.points.iter().filter(|p| p.is_named).collect();
    // In a crowd some get none: not the original, nor what is recommended.
    let is_crowd = plot.points.len() > CROWD;
    let may_lack = |p: &Point| is_crowd && !p.is_ringed && p.y.value > 0.0;
    order.sort_by_key(|p| (may_lack(p), std::cmp::Reverse(near(p))));
    for point in order {
        labels.name(&mut c, at(point), reach_of(point) + 4.0, &point.label, is_crowd);
    }
    c.end()
}

/// How far a point's sign reaches.
fn reach_of(point: &Point) -> f64 {
    if point.is_ringed { 11.0 } else { 6.0 }
}

/// Lines of limits, each with its name at its end.
fn limits(labels: &mut Labels, c: &mut Canvas, plot: &Front<'_>, across: &Across, powers: &Powers, foot: f64) {
    for (value, name) in &plot.columns {
        let (x, w) = (across.place(*value), text_width(name));
        c.line((x, TOP - 12.0), (x, foot), "c");
        let from = (x - w / 2.0).min(WIDTH - w - 4.0);
        let places = [TOP - 27.0, TOP - 12.0, TOP + 3.0].map(|y| Rect { x: from, y, w, h: 12.0 });
        let place = places.iter().find(|r| is_free(&labels.names, r)).unwrap_or(&places[0]).clone();
        c.text(place.x, place.y + 10.0, "start", "s", name);
        labels.names.push(place);
        labels.lines.push(Rect { x: x - 1.0, y: TOP, w: 2.0, h: foot - TOP });
    }
    for (value, name) in &plot.levels {
        let (y, w) = (height(powers, *value), text_width(name));
        c.line((LEFT, y), (RIGHT, y), "c");
        let place = Rect { x: RIGHT - w, y: y - 15.0, w, h: 12.0 };
        c.text(RIGHT, y - 4.0, "end", "s", name);
        labels.names.push(place);
        labels.lines.push(Rect { x: LEFT, y: y - 1.0, w: RIGHT - LEFT, h: 2.0 });
    }
}

/// The scale of costs.
enum Across {
    Even(Axis),
    Powers { low: f64, high: f64 },
}

impl Across {
    fn of(plot: &Front<'_>) -> Self {
        let all = || plot.points.iter().map(|p| p.x).chain(plot.columns.iter().map(|c| c.0)).filter(|v| *v > 0.0);
        let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
        if plot.is_log && high > 4.0 * low {
            Self::Powers { low: low.log10() - 0.06, high: high.log10() + 0.12 }
        } else {
            Self::Even(Axis::around(0.0, 1.05 * high.max(1e-3), 9.0))
        }
    }

    fn place(&self, value: f64) -> f64 {
        match self {
            Self::Even(axis) => axis.place(value, LEFT, RIGHT),
            Self::Powers { low, high } => LEFT + (value.log10() - low) / (high - low) * (RIGHT - LEFT),
        }
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let Self::Powers { low, high } = self else {
            let Self::Even(axis) = self else { return Vec::new() };
            return axis.ticks().collect();
        };
        let steps: &[f64] = if high - low > 1.7 { &[1.0, 2.0, 5.0] } else { &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0] };
        let powers = low.floor() as i32..=high.ceil() as i32;
        let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        let rounded = |v: f64| format!("{:.*}", (1.0 - v.log10().floor()).max(0.0) as usize, v);
        let name = |v: f64| match rounded(v) {
            text if text.contains('.') => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            text => text,
        };
        all.filter(|v| (*low..=*high).contains(&v.log10())).map(|v| (v, name(v))).collect()
    }
}

/// The scale of distances. An interval counts where its value has a place on it.
fn powers_around(plot: &Front<'_>) -> Powers {
    let points = plot.points.iter().filter(|p| p.y.value > 0.0).flat_map(|p| [p.y.value, p.y.high]);
    Powers::around(points.chain(plot.levels.iter().map(|level| level.0)))
}

/// Where a distance is.
fn height(powers: &Powers, distance: f64) -> f64 {
    if distance <= 0.0 { ZERO } else { powers.place(distance, BOTTOM, TOP) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(label: &str, colour: usize, x: f64, y: f64) -> Point {
        let y = Estimate { value: y, low: 0.9 * y, high: 1.1 * y };
        Point { label: label.into(), colour, x, y, on_front: colour == 2, is_ringed: colour == 2, is_named: true }
    }

    fn plot(points: Vec<Point>) -> String {
        draw(&Front {
            title: "t",
            x_name: "x",
            x_unit: "MB",
            y_name: "y",
            is_log: true,
            columns: vec![(70.0, "70 MB".into())],
            levels: vec![(0.01, "KL 0.01".into())],
            points,
        })
    }

    fn places(svg: &str, names: &[String]) -> Vec<Rect> {
        let number = |text: &str, key: &str| -> f64 {
            let from = text.find(key).expect("a place") + key.len();
            text[from..].split('"').next().expect("a number").parse().expect("a number")
        };
        let place = |name: &String| {
            let end = svg.find(&format!(">{name}<")).unwrap_or_else(|| panic!("no {name}"));
            let tag = svg[..end].rsplit("<text ").next().expect("a text");
            Rect { x: number(tag, "x=\""), y: number(tag, "y=\"") - 11.0, w: text_width(name), h: 14.0 }
        };
        names.iter().map(place).collect()
    }

    #[test]
    fn sixteen_names_in_a_crowd_do_not_meet() {
        let names: Vec<String> = (0..16).map(|i| format!("some-model-q{i}")).collect();
        let points = names.iter().enumerate().map(|(i, name)| {
            // Eight almost in one place, the others along a line; the first is the original.
            let (x, y) = if i < 8 {
                (75.0 + i as f64, 0.02 + 0.002 * i as f64)
            } else {
                (40.0 + 9.0 * i as f64, 1.0 / i as f64)
            };
            point(name, i, if i == 0 { 538.0 } else { x }, if i == 0 { 0.0 } else { y })
        });
        let svg = plot(points.collect());
        let all = places(&svg, &names);
        for (i, one) in all.iter().enumerate() {
            assert!(one.x >= LEFT && one.x + one.w <= WIDTH, "{}: {one:?}", names[i]);
            for (j, other) in all.iter().enumerate().skip(i + 1) {
                assert!(!one.meets(other), "{} {one:?} {} {other:?}", names[i], names[j]);
            }
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn limits_are_dashed_and_what_is_recommended_is_ringed() {
        let svg = plot(vec![point("a", 0, 500.0, 0.0), point("b", 1, 90.0, 0.02), point("c", 2, 60.0, 0.005)]);
        assert_eq!(svg.matches(r#"class="c""#).count(), 2, "{svg}");
        assert_eq!(svg.matches(r#"r="10.0" class="d u""#).count(), 1, "{svg}");
        for name in ["\u{2212}3", "\u{2212}1", "70 MB", "KL 0.01", "100", "500"] {
            assert!(svg.contains(&format!(">{name}</text>")), "no {name}: {svg}");
        }
    }

    #[test]
    fn equal_models_and_none_but_the_original_are_drawn() {
        let one = draw(&Front {
            title: "t",
            x_name: "x",
            x_unit: "MB",
            y_name: "y",
            is_log: true,
            columns: vec![],
            levels: vec![],
            points: vec![point("a", 0, 0.0, 0.0)],
        });
        assert!(one.contains(">a</text>") && !one.contains("NaN") && !one.contains("inf"), "{one}");
    }
}
