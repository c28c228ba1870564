//! How values are spread, over one scale.

use super::COLOURS;
use super::canvas::Canvas;
use super::scale::Axis;
use crate::report::told::words::value_text;

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
pub fn draw(title: &str, x_name: &str, rows: &[Histogram]) -> String {
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
