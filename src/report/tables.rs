//! `report.csv`, one line a number, and `report.md`, for a pull request or a model card.

use std::fmt::Write;

use crate::report::estimate::{Difference, Estimate};
use crate::report::numbers::{Numbers, Of};
use crate::report::{language, retrieval};

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
    for line in retrieval::tables::lines(numbers).into_iter().chain(language::tables::lines(numbers)) {
        let Line { direction, metric, estimate: e, n, .. } = line;
        let apart =
            line.difference.map_or(",,,".into(), |d| format!("{},{},{},{}", d.value, d.low, d.high, d.stands_out));
        let (subject, test) = (quote(line.subject), quote(&line.test));
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
    if let [first, _, ..] = &numbers.subjects[..] {
        let _ = writeln!(
            md,
            "\nBold is the best of a column; \u{25b2} and \u{25bc} are above and below {} beyond noise \
             (paired 95 % interval).",
            first.name
        );
    }
    match numbers.of {
        Of::Pictures => retrieval::tables::markdown(numbers, &mut md),
        Of::Language => language::tables::markdown(numbers, &mut md),
    }
    for reason in &numbers.left_out {
        let _ = writeln!(md, "\nLeft out: {reason}");
    }
    md
}

/// Bold where it is the best.
pub fn bold(text: &str, best: bool) -> String {
    if best { format!("**{text}**") } else { text.to_owned() }
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
