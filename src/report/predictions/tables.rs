//! Predictions in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::report::numbers::Numbers;
use crate::report::predictions::{Row, Scored, page};
use crate::report::tables::{Line, table};

/// The lines of the CSV.
pub fn lines<'a>(numbers: &'a Numbers) -> Vec<Line<'a>> {
    let Some(predicted) = &numbers.predicted else { return Vec::new() };
    let line = |(scored, row): (&'a Scored, &'a Row)| {
        Some(Line {
            subject: &row.subject,
            test: predicted.file.clone(),
            direction: "",
            metric: &scored.metric,
            estimate: row.estimate?,
            n: predicted.items,
            difference: row.difference,
        })
    };
    predicted
        .metrics
        .iter()
        .flat_map(|scored| scored.rows.iter().map(move |row| (scored, row)))
        .filter_map(line)
        .collect()
}

/// The sections of the Markdown page.
pub fn markdown(numbers: &Numbers, md: &mut String) {
    let Some(predicted) = &numbers.predicted else { return };
    let _ = writeln!(
        md,
        "\n\u{2191}: higher is better, \u{2193}: lower. {} items, with 95 % intervals.\n",
        predicted.items
    );
    table(numbers, &page::summary(numbers), md);
    if let Some(by_class) = page::by_class(predicted) {
        let _ = writeln!(md, "\n## F1 of each class\n");
        table(numbers, &by_class, md);
    }
}

#[cfg(test)]
mod tests {
    use crate::report::predictions::tests::sample;
    use crate::report::tables::{csv, markdown};

    #[test]
    fn the_tables_have_all_that_has_a_value() {
        let numbers = sample();
        let md = markdown(&numbers);
        assert!(md.contains("| target | accuracy \u{2191} | log-loss \u{2193} | roc-auc \u{2191} |\n"), "{md}");
        assert!(md.contains("| models/<forest> | **0.950**\u{25b2} (0.908\u{2013}0.983) |"), "{md}");
        assert!(md.contains("\u{2013} (no value) |") && md.contains("| models/knn | 0.800 | 0.750 | 0.970 |"), "{md}");
        let csv = csv(&numbers);
        assert_eq!(csv.lines().count(), 1 + 5, "{csv}");
        assert!(csv.contains("models/<forest>,predictions.csv,,accuracy,0.95,"), "{csv}");
    }
}
