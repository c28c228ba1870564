//! Squares of similarities or shares, as shades.

use super::COLOURS;
use super::canvas::Canvas;
use crate::report::told::words::value_text;

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
pub fn draw(plot: &Heat<'_>) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::plot::png;

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
        let svg = draw(&heat);
        assert!(svg.contains("&lt;b&gt;") && svg.contains("&quot;c&quot; &amp; d") && !svg.contains("<b>"));
        assert!(png(&svg).is_ok());
    }
}
