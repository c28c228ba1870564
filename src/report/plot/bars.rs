//! Bars of values that have no scale in common: each group has its own, from 0.

use super::COLOURS;
use super::canvas::{Canvas, text_width};

/// The bars of one number.
#[derive(Debug)]
pub struct Bars {
    /// The number.
    pub name: String,
    /// One a row.
    pub bars: Vec<Bar>,
}

/// One value.
#[derive(Debug)]
pub struct Bar {
    /// At its left.
    pub label: String,
    /// Its row's place among the rows.
    pub colour: usize,
    /// How long it is; none leaves its place empty.
    pub value: Option<f64>,
    /// At its end.
    pub text: String,
}

const WIDTH: f64 = 960.0;
const ROW: f64 = 21.0;
const GAP: f64 = 12.0;
const TOP: f64 = 40.0;

/// Draws the groups below each other.
pub fn draw(title: &str, groups: &[Bars]) -> String {
    let all = || groups.iter().flat_map(|group| &group.bars);
    let widest = |text: &dyn Fn(&Bar) -> f64| all().map(text).fold(60.0, f64::max);
    let (left, right) =
        (widest(&|bar| text_width(&bar.label)) + 40.0, WIDTH - 16.0 - widest(&|bar| text_width(&bar.text)));
    let rows: usize = groups.iter().map(|group| group.bars.len() + 1).sum();
    let mut c = Canvas::new(title, WIDTH, TOP + rows as f64 * ROW + groups.len() as f64 * GAP);
    let mut y = TOP;
    for group in groups {
        let values = || group.bars.iter().filter_map(|bar| bar.value);
        let (low, high) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
        // No scale is drawn, the values are written: the longest bar takes all the place there is.
        let x = |value: f64| left + (value - low) / (high - low).max(f64::MIN_POSITIVE) * (right - left);
        c.text(8.0, y + 13.0, "start", "t", &group.name);
        y += ROW;
        let end = y + group.bars.len() as f64 * ROW;
        for bar in &group.bars {
            let (middle, value) = (y + ROW / 2.0, bar.value.unwrap_or(0.0));
            c.text(left - 26.0, middle + 4.0, "end", "", &bar.label);
            c.marker(left - 14.0, middle, bar.colour, "");
            let (from, to) = (x(value.min(0.0)), x(value.max(0.0)));
            c.mark(&format!("{}, {}: {}", bar.label, group.name, bar.text), |c| {
                c.rect(from, middle - 7.0, (to - from, 14.0), &format!("k{} z", bar.colour % COLOURS.len()), 0.75);
            });
            let class = if bar.value.is_some() { "" } else { "s" };
            c.text(to + 6.0, middle + 4.0, "start", class, &bar.text);
            y += ROW;
        }
        c.line((x(0.0), end - group.bars.len() as f64 * ROW), (x(0.0), end), "a");
        y += GAP;
    }
    c.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widths(values: &[Option<f64>]) -> Vec<f64> {
        let bar = |value| Bar { label: "a".into(), colour: 0, value, text: String::new() };
        let svg = draw("t", &[Bars { name: "n".into(), bars: values.iter().map(|value| bar(*value)).collect() }]);
        let after = |part: &str| -> Option<f64> { part.split("width=\"").nth(1)?.split('"').next()?.parse().ok() };
        svg.split("<rect ").skip(1).filter_map(after).collect()
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let long = widths(&[Some(4.0), Some(2.0), None, Some(0.0)]);
        assert!((long[0] - 2.0 * long[1]).abs() < 0.2, "{long:?}");
        assert_eq!(long[2..], [0.0, 0.0]);
        let below = widths(&[Some(-4.0), Some(2.0)]);
        assert!((below[0] - 2.0 * below[1]).abs() < 0.2, "{below:?}");
    }
}
