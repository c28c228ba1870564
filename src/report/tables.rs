//! `report.csv`, one line a number, and `report.md`, for a pull request or a model card.

use std::fmt::Write;

use crate::measure::estimate::{Difference, Estimate};
use crate::report::numbers::{Numbers, Of, SPEED, Subject};
use crate::report::page::{Cell, Table};
use crate::report::shown::{self, ROWS, shown};
use crate::report::{encoders, language, predictions, retrieval, timing, told};

/// A line of the CSV.
pub struct Line<'a> {
    /// The model.
    pub subject: &'a str,
    /// What it is measured on.
    pub test: String,
    /// `t2i`, `i2t` or `zero-shot`, of pictures.
    pub direction: &'static str,
    /// What is measured.
    pub metric: &'a str,
    /// The value.
    pub estimate: Estimate,
    /// Of how many queries or records.
    pub n: usize,
    /// From the first model.
    pub difference: Option<Difference>,
}

/// All numbers in long form. The last four columns are the difference from the first model, where there is one.
pub fn csv(numbers: &Numbers) -> String {
    let mut csv = String::from(
        "subject,test,direction,metric,value,low,high,n,difference,difference_low,difference_high,stands_out\n",
    );
    let lines = [
        retrieval::tables::lines(numbers),
        language::tables::lines(numbers),
        encoders::tables::lines(numbers),
        told::tables::lines(numbers),
        predictions::tables::lines(numbers),
        timing::tables::lines(numbers),
    ];
    for line in lines.into_iter().flatten() {
        let Line { direction, metric, estimate: e, n, .. } = line;
        let apart =
            line.difference.map_or(",,,".into(), |d| format!("{},{},{},{}", d.value, d.low, d.high, d.stands_out));
        let (subject, test, metric) = (quote(line.subject), quote(&line.test), quote(metric));
        // Without an interval, its ends are empty.
        let [low, high] = [e.low, e.high].map(|end| if end.is_nan() { String::new() } else { end.to_string() });
        let _ = writeln!(csv, "{subject},{test},{direction},{metric},{},{low},{high},{n},{apart}", e.value);
    }
    csv
}

/// The best of some values, as an index for each that reaches it; none where all are the same.
pub fn best(values: &[f64], larger: bool) -> Vec<bool> {
    let better = |a: f64, b: f64| if larger { a > b } else { a < b };
    let top = values.iter().copied().reduce(|a, b| if better(b, a) { b } else { a });
    let same = values.iter().all(|v| Some(*v) == top);
    values.iter().map(|v| !same && Some(*v) == top).collect()
}

/// The sign of a difference beyond noise.
pub fn mark(d: Option<Difference>) -> &'static str {
    match d.map_or(0, |d| d.sign()) {
        1 => "\u{25b2}",
        -1 => "\u{25bc}",
        _ => "",
    }
}

/// The report for a Markdown page.
pub fn markdown(numbers: &Numbers) -> String {
    let mut md = format!("# {}\n\n", numbers.label);
    for sentence in &numbers.headline {
        let _ = writeln!(md, "- {sentence}");
    }
    if let ([first, _, ..], false) = (&numbers.subjects[..], matches!(numbers.of, Of::Told | Of::Timing)) {
        let _ = writeln!(
            md,
            "\nBold is the best of a column; \u{25b2} and \u{25bc} are above and below {} beyond noise \
             (paired 95 % interval).",
            first.name
        );
    }
    if numbers.subjects.len() > ROWS {
        let others = shown::by(numbers).map_or_else(|| "the next".into(), |by| format!("the best by {by}"));
        let (all, noun, most) = (numbers.subjects.len(), numbers.noun(), ROWS - 1);
        let _ = writeln!(md, "\nOf {all} {noun}s the first and {most} more are here, {others}; `report.csv` has all.");
    }
    match numbers.of {
        Of::Pictures => retrieval::tables::markdown(numbers, &mut md),
        Of::Language => language::tables::markdown(numbers, &mut md),
        Of::Encoders => encoders::tables::markdown(numbers, &mut md),
        Of::Told => told::tables::markdown(numbers, &mut md),
        Of::Predictions => predictions::tables::markdown(numbers, &mut md),
        Of::Timing => timing::tables::markdown(numbers, &mut md),
    }
    for reason in &numbers.left_out {
        let _ = writeln!(md, "\nLeft out: {reason}");
    }
    md
}

/// Of each model, in the order of the tables, its size, where models are ranked by distance, and these numbers of its speed,
/// where it was measured.
pub fn sizes_and_speeds<'a>(numbers: &'a Numbers, keys: &[&'static str]) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for subject in numbers.order().into_iter().map(|model| &numbers.subjects[model]) {
        let keys = keys.iter().filter(|_| numbers.has(SPEED));
        let measured = keys.map(|key| (*key, subject.speed[*key].as_f64(), subject.speed("rounds") as usize));
        let bytes = numbers.quantization.is_some().then_some(subject.bytes as f64);
        let size = [("bytes", bytes, 1), ("bits_per_weight", subject.bits_per_weight, 1)];
        for (metric, value, n) in size.into_iter().chain(measured) {
            let Some(value) = value else { continue };
            let Subject { label, .. } = subject;
            let estimate = Estimate::alone(value);
            lines.push(Line {
                subject: label,
                test: String::new(),
                direction: "",
                metric,
                estimate,
                n,
                difference: None,
            });
        }
    }
    lines
}

/// Bold where it is the best.
pub fn bold(text: &str, best: bool) -> String {
    if best { format!("**{text}**") } else { text.to_owned() }
}

/// A table of the page, of as many as are shown.
pub fn table(numbers: &Numbers, table: &Table, md: &mut String) {
    let shown = shown(numbers, ROWS);
    let (noun, columns) = (numbers.noun(), table.columns.join(" | "));
    let _ = writeln!(md, "| {noun} | {columns} |\n|---|{}", "--:|".repeat(table.columns.len()));
    for (at, (model, row)) in
        table.order.iter().zip(&table.rows).enumerate().filter(|(_, (model, _))| shown.contains(model))
    {
        let note =
            table.notes.get(at).filter(|note| !note.is_empty()).map_or(String::new(), |note| format!(", {note}"));
        let cell = |c: &Cell| {
            let note = if c.note.is_empty() { String::new() } else { format!(" ({})", c.note) };
            format!("{}{}{note}", bold(&c.text, c.best), c.mark)
        };
        let cells: Vec<String> = row.iter().map(cell).collect();
        let _ = writeln!(md, "| {}{note} | {} |", numbers.subjects[*model].label, cells.join(" | "));
    }
}

fn quote(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_found_and_a_tie_of_all_has_none() {
        assert_eq!(best(&[0.1, 0.3, 0.3], true), [false, true, true]);
        assert_eq!(best(&[0.1, 0.3], false), [true, false]);
        assert_eq!(best(&[0.2, 0.2], true), [false, false]);
    }
}
