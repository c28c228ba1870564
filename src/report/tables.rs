//! `report.csv`, one line a number, and `report.md`, for a pull request or a model card.

use std::fmt::Write;

use crate::report::numbers::{Metrics, Numbers};
use crate::report::retrieval::{Difference, Estimate};
use crate::report::words;

/// All numbers in long form. The last four columns are the difference from the first model, where there is one.
pub fn csv(numbers: &Numbers) -> String {
    let mut csv = String::from(
        "subject,test,direction,metric,value,low,high,n,difference,difference_low,difference_high,stands_out\n",
    );
    let mut line =
        |subject: &str, test: &str, direction: &str, metric: &str, e: &Estimate, n, d: Option<Difference>| {
            let apart = d.map_or(",,,".into(), |d| format!("{},{},{},{}", d.value, d.low, d.high, d.stands_out));
            let (subject, test) = (quote(subject), quote(test));
            let _ = writeln!(csv, "{subject},{test},{direction},{metric},{},{},{},{n},{apart}", e.value, e.low, e.high);
        };
    for test in &numbers.tests {
        for row in &test.rows {
            for (metric, e) in &row.t2i {
                line(&row.subject, &test.name, "t2i", metric, e, test.n, row.difference(metric));
            }
            for (metric, e) in &row.i2t {
                line(&row.subject, &test.name, "i2t", metric, e, test.n, None);
            }
        }
    }
    for zero in &numbers.zero_shot {
        for row in &zero.rows {
            line(&row.subject, &zero.column, "zero-shot", "accuracy", &row.accuracy, zero.n, row.difference);
        }
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
        for (i, row) in test.rows.iter().enumerate() {
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
        for (row, best) in zero.rows.iter().zip(bests) {
            let apart = row.difference.map_or(String::new(), |d| words::difference(&d));
            let accuracy = bold(&format!("{:.3}", row.accuracy.value), best);
            let _ = writeln!(md, "| {} | {accuracy}{} | {apart} |", row.subject, mark(row.difference));
        }
    }
    let _ = writeln!(md, "\n## Size and speed\n\n| model | MB | pictures/s | one text, p50 ms |\n|---|--:|--:|--:|");
    for s in &numbers.subjects {
        let (pictures, text) = (s.speed("pictures_per_s"), s.speed("text_p50_ms"));
        let _ = writeln!(md, "| {} | {:.1} | {pictures:.0} | {text:.1} |", s.label, s.megabytes());
    }
    let _ = writeln!(md, "\nMeasured on: {}.", numbers.machine);
    for reason in &numbers.left_out {
        let _ = writeln!(md, "\nLeft out: {reason}");
    }
    md
}

fn bold(text: &str, best: bool) -> String {
    if best { format!("**{text}**") } else { text.to_owned() }
}

fn quote(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::numbers::tests::sample;

    #[test]
    fn the_best_is_found_and_a_tie_of_all_has_none() {
        assert_eq!(best(&[0.1, 0.3, 0.3], true), [false, true, true]);
        assert_eq!(best(&[0.1, 0.3], false), [true, false]);
        assert_eq!(best(&[0.2, 0.2], true), [false, false]);
    }

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
