//! Told numbers in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::measure::estimate::Estimate;
use crate::report::numbers::Numbers;
use crate::report::tables::{Line, table};
use crate::report::told::page;

/// The lines of the CSV: the last value of each number, and of how many points it is the last.
pub fn lines(numbers: &Numbers) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for told in &numbers.told {
        for row in &told.rows {
            let Some(value) = row.value else { continue };
            lines.push(Line {
                subject: &row.subject,
                test: String::new(),
                direction: "",
                metric: &told.name,
                estimate: Estimate::alone(value),
                n: row.curve.len().max(1),
                difference: None,
            });
        }
    }
    lines
}

/// The sections of the Markdown page.
pub fn markdown(numbers: &Numbers, md: &mut String) {
    let _ = writeln!(
        md,
        "\nBold is the best of a column. The last values that each target's program told, of one run each; \u{2191}: higher \
         is better, \u{2193}: lower.\n"
    );
    table(numbers, &page::summary(numbers), md);
}

#[cfg(test)]
mod tests {
    use crate::report::tables::{csv, markdown};
    use crate::report::told::tests::sample;

    #[test]
    fn the_tables_have_all_that_was_told_and_say_what_was_not() {
        let numbers = sample();
        let md = markdown(&numbers);
        assert!(md.contains("\n| target | accuracy \u{2191} | train.loss \u{2193} | log-likelihood |\n"), "{md}");
        assert!(md.contains("\n| models/forest | **0.9722** | \u{2013} (not told) | \u{2212}2 |\n"), "{md}");
        assert!(!md.contains("beyond noise"), "{md}");
        let csv = csv(&numbers);
        assert_eq!(csv.lines().count(), 1 + 8, "{csv}");
        assert!(csv.contains("models/mlp,,,accuracy,0.951,,,1,,,,\n"), "{csv}");
        assert!(csv.contains(",train.loss,0.018666666666666665,,,60,,,,\n"), "{csv}");
    }
}
