//! Retrieval and zero-shot classification in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::report::numbers::Numbers;
use crate::report::retrieval::Metrics;
use crate::report::shown::{ROWS, shown};
use crate::report::tables::{Line, best, bold, mark};
use crate::report::words;

/// The lines of the CSV.
pub fn lines(numbers: &Numbers) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for test in &numbers.tests {
        for row in &test.rows {
            let line = |direction, metric, estimate, difference| {
                let test_name = test.name.clone();
                Line { subject: &row.subject, test: test_name, direction, metric, estimate, n: test.n, difference }
            };
            lines.extend(row.t2i.iter().map(|(metric, e)| line("t2i", *metric, *e, row.difference(metric))));
            lines.extend(row.i2t.iter().map(|(metric, e)| line("i2t", *metric, *e, None)));
        }
    }
    for zero in &numbers.zero_shot {
        lines.extend(zero.rows.iter().map(|row| Line {
            subject: &row.subject,
            test: zero.column.clone(),
            direction: "zero-shot",
            metric: "accuracy",
            estimate: row.accuracy,
            n: zero.n,
            difference: row.difference,
        }));
    }
    lines
}

/// The sections of the Markdown page.
pub fn markdown(numbers: &Numbers, md: &mut String) {
    let shown = shown(numbers, ROWS);
    for test in &numbers.tests {
        let _ = writeln!(
            md,
            "\n## {} (n = {})\n\n| model | R@1 | R@5 | R@10 | median rank | R@1 from the first \
             | R@10 from the first |\n|---|--:|--:|--:|--:|--:|--:|",
            test.name, test.n
        );
        let column = |pick: &dyn Fn(&Metrics) -> f64, larger| {
            best(&test.rows.iter().map(|row| pick(&row.t2i)).collect::<Vec<_>>(), larger)
        };
        let recalls = ["recall@1", "recall@5", "recall@10"];
        let bests = recalls.map(|m| column(&|t| t[m].value, true));
        let ranks = column(&|t| t["median-rank"].value, false);
        for (i, row) in shown.iter().map(|i| (*i, &test.rows[*i])) {
            let _ = write!(md, "| {} |", row.subject);
            for (metric, best) in recalls.iter().zip(&bests) {
                let sign = mark(row.difference(metric));
                let _ = write!(md, " {}{sign} |", bold(&format!("{:.3}", row.t2i[metric].value), best[i]));
            }
            let _ = write!(md, " {} |", bold(&row.t2i["median-rank"].value.to_string(), ranks[i]));
            for metric in ["recall@1", "recall@10"] {
                let text = row.difference(metric).map_or(String::new(), |d| words::difference(&d));
                let _ = write!(md, " {text} |");
            }
            md.push('\n');
        }
    }
    for zero in &numbers.zero_shot {
        let _ = writeln!(
            md,
            "\n## Zero-shot: {} (n = {}, {} classes, chance {:.3}, largest class {:.3})\n\n\
             | model | accuracy | from the first |\n|---|--:|--:|",
            zero.column,
            zero.n,
            zero.classes.len(),
            zero.chance,
            zero.majority
        );
        let bests = best(&zero.rows.iter().map(|row| row.accuracy.value).collect::<Vec<_>>(), true);
        for (row, best) in shown.iter().map(|i| (&zero.rows[*i], bests[*i])) {
            let apart = row.difference.map_or(String::new(), |d| words::difference(&d));
            let accuracy = bold(&format!("{:.3}", row.accuracy.value), best);
            let _ = writeln!(md, "| {} | {accuracy}{} | {apart} |", row.subject, mark(row.difference));
        }
    }
    let _ = writeln!(md, "\n## Size and speed\n\n| model | MB | pictures/s | one text, p50 ms |\n|---|--:|--:|--:|");
    for s in shown.iter().map(|i| &numbers.subjects[*i]) {
        let (pictures, text) = (s.speed("pictures_per_s"), s.speed("text_p50_ms"));
        let _ = writeln!(md, "| {} | {:.1} | {pictures:.0} | {text:.1} |", s.label, s.megabytes());
    }
    let _ = writeln!(md, "\nMeasured on: {}.", numbers.machine);
}

#[cfg(test)]
mod tests {
    use crate::report::retrieval::tests::sample;
    use crate::report::tables::{csv, markdown};

    #[test]
    fn the_csv_has_as_many_fields_on_each_line() {
        let csv = csv(&sample());
        assert!(csv.lines().all(|l| l.split(',').count() == 12), "{csv}");
        assert_eq!(csv.lines().count(), 1 + 3 * 8 + 3);
        let line = csv.lines().find(|l| l.starts_with("models/b-q4,unseen,t2i,recall@10,")).unwrap();
        assert!(line.ends_with(",true"), "{line}");
    }

    #[test]
    fn markdown_marks_what_is_beyond_noise() {
        let md = markdown(&sample());
        assert!(md.contains("| models/a | ") && md.contains("**0.700**"), "{md}");
        assert!(md.contains("0.200\u{25bc} |") && md.contains("\u{2212}0.500, "), "{md}");
    }
}
