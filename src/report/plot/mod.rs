//! Plots as SVG, and their PNG. A small layer of our own: points with intervals on a shared scale, lines in panels,
//! a matrix of shades, all directly labelled; a general plotting library draws these with legends and fixed
//! colours, and cannot follow the reader's dark mode.
//!
//! Every colour is a class. A file alone carries [`style`] and is right on white; the page carries it once and
//! has its own colours for dark mode after it. What stands for a value is a mark (`class="m"`) that says in its `title`
//! whose it is and how much; the page's script shows that at once, by pointer and by keyboard.

pub mod bars;
pub mod front;
pub mod ranked;
pub mod roofline;
pub mod strips;

use std::fmt::Write;

use crate::failure::Failure;
use crate::measure::estimate::Estimate;
use crate::report::told::words::value_text;

/// Okabe and Ito's colour-blind-safe colours but for yellow, which is lost on white.
pub const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/// The rules of the plots' classes, on white.
pub fn style() -> String {
    let mut css = String::from(
        ".fx text{font-family:system-ui,Ubuntu,sans-serif;font-size:12px;fill:#333}.fx .h{font-size:15px;\
         font-weight:600}.fx .t{font-size:13px;font-weight:600}.fx .s{font-size:11px;fill:#666}.fx .g{stroke:#e2e2e2}\
         .fx .a{stroke:#999}.fx .c{stroke:#777;stroke-dasharray:4 3}",
    );
    for (i, colour) in COLOURS.iter().enumerate() {
        let _ = write!(css, ".fx .k{i}{{stroke:{colour};fill:{colour}}}");
    }
    css + ".fx .n{fill:none}.fx .o{fill:#fff}.fx .z{stroke:none}.fx .d{fill:none;stroke:#333;stroke-width:1.5}\
           .fx .p{fill:#fff;stroke:#333}.fx .i{fill:#333;stroke:none}.fx .w{stroke-width:2}\
           .fx .r{stroke-width:.8;stroke-opacity:.4}.fx .v{stroke-dasharray:6 3}.fx .e{font-size:8px}.fx .u{pointer-events:none}"
}

/// A drawing under construction.
struct Canvas {
    svg: String,
}

impl Canvas {
    fn new(title: &str, width: f64, height: f64) -> Self {
        let title = escape(title);
        let svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}""#
        ) + &format!(
            r#" class="fx" role="img" aria-label="{title}"><style>{}</style><text x="8" y="20" class="h">{title}</text>"#,
            style()
        );
        Self { svg }
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        let _ = write!(self.svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#);
    }

    /// What `draw` draws stands for a value, which `says` tells.
    fn mark(&mut self, says: &str, draw: impl FnOnce(&mut Self)) {
        let _ = write!(self.svg, r#"<g class="m"><title>{}</title>"#, escape(says));
        draw(self);
        self.svg.push_str("</g>");
    }

    /// 10 to a power, ending at `x`. Not by the letters that stand above the line: the PNG's have no minus among them.
    fn power(&mut self, x: f64, y: f64, power: i32) {
        let above = power.to_string().replace('-', "\u{2212}");
        let start = x - 5.0 * above.chars().count() as f64;
        self.text(start, y, "end", "s", "10");
        self.text(start + 1.0, y - 5.0, "start", "s e", &above);
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(self.svg, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#);
    }

    fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.svg, r#"<polyline points="{}" class="{class}"/>"#, points.join(" "));
    }

    fn marker(&mut self, x: f64, y: f64, colour: usize, class: &str) {
        let _ = write!(self.svg, "{}", marker(x, y, colour, class));
    }

    fn circle(&mut self, x: f64, y: f64, radius: f64, class: &str) {
        let _ = write!(self.svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" class="{class}"/>"#);
    }

    /// A small triangle, up for above and down for below beyond noise.
    fn sign(&mut self, x: f64, y: f64, sign: i8) {
        if sign != 0 {
            let s = -4.0 * f64::from(sign);
            let (l, r, foot, tip) = (x - 4.0, x + 4.0, y - s, y + s);
            let _ =
                write!(self.svg, r#"<polygon points="{l:.1},{foot:.1} {r:.1},{foot:.1} {x:.1},{tip:.1}" class="i"/>"#);
        }
    }

    fn rect(&mut self, x: f64, y: f64, size: (f64, f64), class: &str, opacity: f64) {
        let opacity = if opacity < 1.0 { format!(r#" fill-opacity="{opacity:.3}""#) } else { String::new() };
        let (w, h) = size;
        let _ = write!(
            self.svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" class="{class}"{opacity}/>"#
        );
    }

    fn end(self) -> String {
        self.svg + "</svg>"
    }
}

/// A model's sign: each has its colour and its shape, so that colour alone never tells.
fn marker(x: f64, y: f64, colour: usize, class: &str) -> String {
    let k = colour % COLOURS.len();
    let corners = |c: &[(f64, f64)]| {
        let points: Vec<String> = c.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
        format!(r#"<polygon points="{}" class="k{k} {class}"/>"#, points.join(" "))
    };
    match colour % 4 {
        0 => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.5" class="k{k} {class}"/>"#),
        1 => corners(&[(-4.0, -4.0), (4.0, -4.0), (4.0, 4.0), (-4.0, 4.0)]),
        2 => corners(&[(0.0, -5.5), (5.5, 0.0), (0.0, 5.5), (-5.5, 0.0)]),
        _ => corners(&[(0.0, -5.2), (5.0, 4.0), (-5.0, 4.0)]),
    }
}

/// A model's sign by itself, for a table.
pub fn swatch(colour: usize) -> String {
    let marker = marker(6.0, 6.0, colour, "");
    format!(r#"<svg class="fx swatch" width="12" height="12" viewBox="0 0 12 12" aria-hidden="true">{marker}</svg>"#)
}

/// A scale between round numbers.
#[derive(Debug)]
struct Axis {
    low: f64,
    step: f64,
    steps: usize,
}

impl Axis {
    /// Round numbers around these, in about so many steps of 1, 2 or 5 times a power of ten.
    fn around(low: f64, high: f64, about: f64) -> Self {
        let span = if high - low > 1e-9 { high - low } else { 1e-3 };
        let power = 10f64.powf((span / about).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| span / s <= about).unwrap_or(span);
        let low = (low / step + 1e-9).floor() * step;
        let steps = (((high - low) / step - 1e-9).ceil() as usize).max(1);
        Self { low, step, steps }
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> + '_ {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        (0..=self.steps).map(move |i| {
            let value = self.low + i as f64 * self.step;
            let digits = format!("{:.decimals$}", value.abs());
            let negative = value < -self.step / 2.0;
            (value, if negative { format!("\u{2212}{digits}") } else { digits })
        })
    }

    /// Where a value is between two ends.
    fn place(&self, value: f64, from: f64, to: f64) -> f64 {
        from + (value - self.low) / (self.step * self.steps as f64) * (to - from)
    }
}

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
pub fn dots(plot: &Dots<'_>) -> String {
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
pub fn panels(title: &str, x_name: &str, panels: &[Panel]) -> String {
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

/// Heights at least so far apart, in the order they were, moved as little as going down once allows.
fn spread(heights: &[f64], apart: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|a, b| heights[*a].total_cmp(&heights[*b]));
    let mut placed = heights.to_vec();
    for pair in order.windows(2) {
        placed[pair[1]] = placed[pair[1]].max(placed[pair[0]] + apart);
    }
    placed
}

/// Takes heights that were spread up again where they went below this one.
fn lift(heights: &mut [f64], apart: f64, lowest: f64) {
    let mut order: Vec<usize> = (0..heights.len()).collect();
    order.sort_by(|a, b| heights[*b].total_cmp(&heights[*a]));
    let mut most = lowest;
    for i in order {
        heights[i] = heights[i].min(most);
        most = heights[i] - apart;
    }
}

/// How values are spread: one model's.
#[derive(Debug)]
pub struct Histogram {
    /// The model.
    pub label: String,
    /// Its place among the models.
    pub colour: usize,
    /// In any order.
    pub values: Vec<f64>,
}

/// Draws histograms below each other over one scale, with the same bins and the same height for the same count.
pub fn histograms(title: &str, x_name: &str, rows: &[Histogram]) -> String {
    let (width, height, top) = (960.0, 112.0, 40.0);
    let bottom = top + height * rows.len() as f64;
    let (left, right) = (44.0, width - 24.0);
    let all = || rows.iter().flat_map(|r| &r.values).copied();
    let (low, high) = all().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let axis = Axis::around(low, high, 9.0);
    let x = |v: f64| axis.place(v, left, right);
    // Bins end on the scale's lines, and are finer where there is more to fill them.
    let most = rows.iter().map(|r| r.values.len()).max().unwrap_or(0) as f64;
    let parts = [5, 4, 2].into_iter().find(|p| (axis.steps * p) as f64 <= 3.0 * most.sqrt()).unwrap_or(1);
    let (bins, bin) = (axis.steps * parts, axis.step / parts as f64);
    let counts = |values: &[f64]| {
        let mut counts = vec![0usize; bins];
        values.iter().for_each(|v| counts[(((v - axis.low) / bin) as usize).min(bins - 1)] += 1);
        counts
    };
    let tallest = rows.iter().flat_map(|r| counts(&r.values)).max().unwrap_or(0).max(1);
    let mut c = Canvas::new(title, width, bottom + 44.0);
    for (value, name) in axis.ticks() {
        c.line((x(value), top), (x(value), bottom), "g");
        c.text(x(value), bottom + 16.0, "middle", "s", &name);
    }
    c.text((left + right) / 2.0, bottom + 34.0, "middle", "s", x_name);
    for (i, row) in rows.iter().enumerate() {
        let foot = top + height * (i + 1) as f64;
        let room = height - 30.0;
        let k = format!("k{} z", row.colour % COLOURS.len());
        c.line((left, foot), (right, foot), "a");
        for (b, count) in counts(&row.values).into_iter().enumerate().filter(|(_, count)| *count > 0) {
            let h = room * count as f64 / tallest as f64;
            let (low, high) = (axis.low + bin * b as f64, axis.low + bin * (b + 1) as f64);
            let says = format!(
                "{}: {count} of {} from {} to {}",
                row.label,
                row.values.len(),
                value_text(low),
                value_text(high)
            );
            c.mark(&says, |c| c.rect(x(low) + 0.5, foot - h, (x(high) - x(low) - 1.0, h), &k, 0.6));
        }
        let largest = counts(&row.values).into_iter().max().unwrap_or(0);
        let level = foot - room * largest as f64 / tallest as f64;
        c.line((left - 4.0, level), (left, level), "a");
        c.text(left - 8.0, level + 4.0, "end", "s", &largest.to_string());
        let mut sorted = row.values.clone();
        sorted.sort_by(f64::total_cmp);
        if let Some(n) = sorted.len().checked_sub(1) {
            let median = (sorted[n / 2] + sorted[n.div_ceil(2)]) / 2.0;
            c.mark(&format!("{}: median {}", row.label, value_text(median)), |c| {
                c.line((x(median), foot), (x(median), foot - room), &format!("k{} w", row.colour % COLOURS.len()));
            });
        }
        c.marker(left + 10.0, foot - height + 17.0, row.colour, "");
        c.text(left + 22.0, foot - height + 21.0, "start", "t", &row.label);
    }
    c.end()
}

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
pub fn scatter(title: &str, x_name: &str, y_name: &str, spots: &[Spot]) -> String {
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

/// Of more points than these, names that find no room are left to the points' marks.
const CROWD: usize = 24;

#[derive(Clone, Debug)]
struct Rect {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
}

impl Rect {
    fn around(x: f64, y: f64, reach: f64) -> Self {
        Self { x: x - reach, y: y - reach, w: 2.0 * reach, h: 2.0 * reach }
    }

    fn meets(&self, other: &Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

/// A square of similarities or shares.
#[derive(Debug)]
pub struct Heat<'a> {
    /// Above.
    pub title: &'a str,
    /// Under the title, small.
    pub note: &'a str,
    /// Of the rows.
    pub names: &'a [String],
    /// Row by row.
    pub values: &'a [f32],
    /// What the shades are of, above their scale.
    pub scale: &'a str,
    /// The diagonal is what is right, and framed; else it is of each with itself, and says nothing.
    pub has_diagonal: bool,
    /// The model's place among the models.
    pub colour: usize,
}

/// Draws a square of similarities or shares as shades, with their scale.
pub fn heat(plot: &Heat<'_>) -> String {
    let n = plot.names.len();
    let (cell, left, top) = (20.0, 232.0, 72.0);
    let side = cell * n as f64;
    let (low, high) = plot.values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let width =
        (left + side + 110.0).max(64.0 + 8.0 * plot.title.chars().count().max(plot.note.chars().count()) as f64);
    let k = format!("k{} z", plot.colour % COLOURS.len());
    let mut c = Canvas::new(plot.title, width.max(480.0), top + side + 16.0);
    c.text(8.0, 38.0, "start", "s", plot.note);
    // Names that fit above a column need no numbers to stand for them.
    let are_short = plot.names.iter().all(|name| name.chars().count() <= 2);
    for (i, name) in plot.names.iter().enumerate() {
        let (y, row) = (top + cell * i as f64, &plot.values[i * n..(i + 1) * n]);
        let column = if are_short { name.clone() } else { (i + 1).to_string() };
        if !are_short {
            c.text(left - 30.0, y + 14.0, "end", "s", name);
        }
        c.text(left - 8.0, y + 14.0, "end", "s", &column);
        c.text(left + cell * (i as f64 + 0.5), top - 6.0, "middle", "s", &column);
        let counts = |j: usize| plot.has_diagonal || j != i;
        let nearest = (0..n).filter(|j| counts(*j)).reduce(|best, j| if row[j] > row[best] { j } else { best });
        for (j, value) in row.iter().enumerate() {
            let share = f64::from((value - low) / (high - low).max(1e-9));
            let x = left + cell * j as f64;
            let says =
                format!("{}. {name} \u{2013} {}. {}: {}", i + 1, j + 1, plot.names[j], value_text(f64::from(*value)));
            c.mark(&says, |c| {
                c.rect(x, y, (cell, cell), &k, share.min(0.999));
                // Of a row of equals none is the nearest.
                if Some(j) == nearest && (0..n).any(|other| counts(other) && row[other] < *value) {
                    c.circle(x + cell / 2.0, y + cell / 2.0, 3.0, "p");
                }
            });
        }
    }
    for i in (0..n).filter(|_| plot.has_diagonal) {
        let at = cell * i as f64;
        c.rect(left + at + 0.75, top + at + 0.75, (cell - 1.5, cell - 1.5), "d u", 1.0);
    }
    let (x, length, parts) = (left + side + 28.0, side.min(200.0), 40);
    for i in 0..parts {
        let share = 1.0 - (f64::from(i) + 0.5) / f64::from(parts);
        let step = length / f64::from(parts);
        c.rect(x, top + step * f64::from(i), (14.0, step), &k, share);
    }
    c.rect(x, top, (14.0, length), "n a", 1.0);
    c.text(x, top - 6.0, "start", "s", plot.scale);
    for (value, y) in [(high, top + 9.0), ((low + high) / 2.0, top + length / 2.0 + 4.0), (low, top + length)] {
        c.text(x + 20.0, y, "start", "s", &format!("{value:.2}").replace('-', "\u{2212}"));
    }
    c.end()
}

/// "name: 0.5120 (0.4900 to 0.5300)", or without an interval where none is known.
fn told(name: &str, e: Estimate) -> String {
    let value = value_text(e.value);
    // Of what is compared with itself the interval has no width.
    let has_interval = e.low < e.high;
    let interval = has_interval.then(|| format!(" ({} to {})", value_text(e.low), value_text(e.high)));
    format!("{name}: {value}{}", interval.unwrap_or_default())
}

/// About how wide a label is, in the widest of the usual fonts.
fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 7.4
}

/// For XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The PNG of a plot, on white, twice its size; its letters come with the program.
pub fn png(svg: &str) -> Result<Vec<u8>, Failure> {
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    use image::{ExtendedColorType, ImageEncoder};
    use resvg::{tiny_skia, usvg};
    let failed = |e: &dyn std::fmt::Display| Failure::target(format!("a plot cannot be drawn: {e}"));
    let mut options = usvg::Options { font_family: "Ubuntu".into(), ..Default::default() };
    options.fontdb_mut().load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = options.fontdb_mut().faces().next().and_then(|f| f.families.first().map(|f| f.0.clone()));
    if let Some(family) = family {
        options.fontdb_mut().set_sans_serif_family(family);
    }
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| failed(&e))?;
    let size = tree.size();
    let mut canvas = tiny_skia::Pixmap::new((size.width() * 2.0) as u32, (size.height() * 2.0) as u32)
        .ok_or_else(|| failed(&"it has no size"))?;
    canvas.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(2.0, 2.0), &mut canvas.as_mut());
    // Nothing is transparent, and most of a line is as the one above it: half the time of looking for the best filter.
    let mut pixels = Vec::with_capacity(canvas.data().len() / 4 * 3);
    canvas.data().chunks_exact(4).for_each(|pixel| pixels.extend_from_slice(&pixel[..3]));
    let mut png = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Up);
    let (width, height) = (canvas.width(), canvas.height());
    encoder.write_image(&pixels, width, height, ExtendedColorType::Rgb8).map_err(|e| failed(&e))?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(low: f64, high: f64, about: f64) -> Vec<String> {
        Axis::around(low, high, about).ticks().map(|t| t.1).collect()
    }

    #[test]
    fn scales_go_between_round_numbers() {
        assert_eq!(names(0.0, 0.87, 5.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(names(0.0, 132.5, 8.0), ["0", "20", "40", "60", "80", "100", "120", "140"]);
        assert_eq!(
            names(-0.07, 0.021, 5.0),
            ["\u{2212}0.08", "\u{2212}0.06", "\u{2212}0.04", "\u{2212}0.02", "0.00", "0.02", "0.04"][..]
        );
        let flat = Axis::around(0.5, 0.5, 5.0);
        assert!(flat.place(0.5, 0.0, 100.0).is_finite() && flat.steps >= 1, "{flat:?}");
    }

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

    #[test]
    fn marks_say_whose_value_they_are_and_how_sure() {
        assert_eq!(
            told("a, test", Estimate { value: 0.5, low: 0.25, high: 0.75 }),
            "a, test: 0.5000 (0.2500 to 0.7500)"
        );
        assert_eq!(told("a", Estimate::alone(12.0)), "a: 12");
    }

    #[test]
    fn labels_are_spread_and_keep_their_order() {
        assert_eq!(spread(&[10.0, 100.0, 12.0], 14.0), [10.0, 100.0, 24.0]);
        let mut heights = [114.0, 10.0, 100.0];
        lift(&mut heights, 14.0, 105.0);
        assert_eq!(heights, [105.0, 10.0, 91.0]);
    }

    #[test]
    fn labels_of_near_points_do_not_meet() {
        let spot = |label: &str, colour, x| Spot {
            label: label.into(),
            colour,
            x,
            y: Estimate { value: 0.5, low: 0.4, high: 0.6 },
            is_named: true,
        };
        let svg = scatter("t", "x", "y", &[spot("emoji-clip", 0, 120.0), spot("emoji-clip-lora", 1, 132.0)]);
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

    #[test]
    fn names_are_escaped() {
        let names = ["<b>".to_owned(), "\"c\" & d".to_owned()];
        let heat = Heat {
            title: "a < b",
            note: "n",
            names: &names,
            values: &[0.0, 1.0, 1.0, 0.0],
            scale: "s",
            has_diagonal: true,
            colour: 9,
        };
        let svg = super::heat(&heat);
        assert!(svg.contains("&lt;b&gt;") && svg.contains("&quot;c&quot; &amp; d") && !svg.contains("<b>"));
        assert!(png(&svg).is_ok());
    }
}
