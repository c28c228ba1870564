//! What plots are drawn on, and what all of them write alike.

use std::fmt::Write;

use super::{COLOURS, style};
use crate::measure::estimate::Estimate;
use crate::report::told::words::value_text;

/// A drawing under construction.
pub(super) struct Canvas {
    svg: String,
}

impl Canvas {
    pub(super) fn new(title: &str, width: f64, height: f64) -> Self {
        let title = escape(title);
        let svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}""#
        ) + &format!(
            r#" class="fx" role="img" aria-label="{title}"><style>{}</style><text x="8" y="20" class="h">{title}</text>"#,
            style()
        );
        Self { svg }
    }

    pub(super) fn text(&mut self, x: f64, y: f64, anchor: &str, class: &str, text: &str) {
        let text = escape(text);
        let _ = write!(self.svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{text}</text>"#);
    }

    /// What `draw` draws stands for a value, which `says` tells.
    pub(super) fn mark(&mut self, says: &str, draw: impl FnOnce(&mut Self)) {
        let _ = write!(self.svg, r#"<g class="m"><title>{}</title>"#, escape(says));
        draw(self);
        self.svg.push_str("</g>");
    }

    /// 10 to a power, ending at `x`. Not by the letters that stand above the line: the PNG's have no minus among them.
    pub(super) fn power(&mut self, x: f64, y: f64, power: i32) {
        let above = power.to_string().replace('-', "\u{2212}");
        let start = x - 5.0 * above.chars().count() as f64;
        self.text(start, y, "end", "s", "10");
        self.text(start + 1.0, y - 5.0, "start", "s e", &above);
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = write!(self.svg, r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#);
    }

    pub(super) fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(self.svg, r#"<polyline points="{}" class="{class}"/>"#, points.join(" "));
    }

    pub(super) fn marker(&mut self, x: f64, y: f64, colour: usize, class: &str) {
        let _ = write!(self.svg, "{}", marker(x, y, colour, class));
    }

    pub(super) fn circle(&mut self, x: f64, y: f64, radius: f64, class: &str) {
        let _ = write!(self.svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" class="{class}"/>"#);
    }

    /// A small triangle, up for above and down for below beyond noise.
    pub(super) fn sign(&mut self, x: f64, y: f64, sign: i8) {
        if sign != 0 {
            let s = -4.0 * f64::from(sign);
            let (l, r, foot, tip) = (x - 4.0, x + 4.0, y - s, y + s);
            let _ =
                write!(self.svg, r#"<polygon points="{l:.1},{foot:.1} {r:.1},{foot:.1} {x:.1},{tip:.1}" class="i"/>"#);
        }
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, size: (f64, f64), class: &str, opacity: f64) {
        let opacity = if opacity < 1.0 { format!(r#" fill-opacity="{opacity:.3}""#) } else { String::new() };
        let (w, h) = size;
        let _ = write!(
            self.svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" class="{class}"{opacity}/>"#
        );
    }

    pub(super) fn end(self) -> String {
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

/// "name: 0.5120 (0.4900 to 0.5300)", or without an interval where none is known.
pub(super) fn told(name: &str, e: Estimate) -> String {
    let value = value_text(e.value);
    // Of what is compared with itself the interval has no width.
    let has_interval = e.low < e.high;
    let interval = has_interval.then(|| format!(" ({} to {})", value_text(e.low), value_text(e.high)));
    format!("{name}: {value}{}", interval.unwrap_or_default())
}

/// About how wide a label is, in the widest of the usual fonts.
pub(super) fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * 7.4
}

/// For XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_say_whose_value_they_are_and_how_sure() {
        assert_eq!(
            told("a, test", Estimate { value: 0.5, low: 0.25, high: 0.75 }),
            "a, test: 0.5000 (0.2500 to 0.7500)"
        );
        assert_eq!(told("a", Estimate::alone(12.0)), "a: 12");
    }
}
