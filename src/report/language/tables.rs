//! Language models in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::report::language::words::{perplexity_text, texts_name};
use crate::report::numbers::Numbers;
use crate::report::tables::{Line, best, bold, mark};
use crate::report::words;

/// The lines of the CSV.
pub fn lines(numbers: &Numbers) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for texts in &numbers.texts {
        for row in &texts.rows {
            let line = |metric, estimate, difference| Line {
                subject: &row.subject,
                test: texts_name(texts),
                direction: "",
                metric,
                estimate,
                n: texts.records,
                difference,
            };
            lines.push(line("perplexity", row.perplexity, None));
            lines.push(line("loss", row.loss, row.difference));
            lines.extend(row.ratio.map(|ratio| line("perplexity-ratio", ratio, None)));
        }
    }
    lines
}

/// The sections of the Markdown page.
pub fn markdown(numbers: &Numbers, md: &mut String) {
    for texts in &numbers.texts {
        let _ = writeln!(
            md,
            "\n## Perplexity: {} (n = {} records, {} tokens)\n\n| model | perplexity | 95 % interval | loss, nats a token \
             | ratio to the first | better on |\n|---|--:|--:|--:|--:|--:|",
            texts_name(texts),
            texts.records,
            texts.tokens
        );
        let bests = best(&texts.rows.iter().map(|row| row.perplexity.value).collect::<Vec<_>>(), false);
        for (row, best) in texts.rows.iter().zip(bests) {
            let p = row.perplexity;
            let ratio = row.ratio.map_or(String::new(), |r| format!("{:.3}, {:.3} to {:.3}", r.value, r.low, r.high));
            let better = row.better.map_or(String::new(), |n| format!("{n} of {}", texts.records));
            let _ = writeln!(
                md,
                "| {} | {}{} | {} to {} | {:.3} | {ratio} | {better} |",
                row.subject,
                bold(&perplexity_text(p.value), best),
                mark(row.difference),
                perplexity_text(p.low),
                perplexity_text(p.high),
                row.loss.value
            );
        }
    }
    let _ = writeln!(md, "\n## Size\n\n| model | MB | of its own |\n|---|--:|--:|");
    for s in &numbers.subjects {
        let _ = writeln!(md, "| {} | {:.1} | {:.1} |", s.label, s.megabytes(), s.own_megabytes());
    }
    if !numbers.answers.is_empty() {
        let _ = writeln!(md, "\n## Answers");
    }
    for asked in &numbers.answers {
        let _ = writeln!(md, "\n{}\n\n| model | answer |\n|---|---|", words::one_line(&asked.prompt));
        for (subject, answer) in numbers.subjects.iter().zip(&asked.answers) {
            let end = if answer.cut { "\u{2026}" } else { "" };
            let _ = writeln!(md, "| {} | {}{end} |", subject.label, cell(&answer.text));
        }
    }
}

/// A text within a table.
fn cell(text: &str) -> String {
    let text = text.trim().replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;");
    text.lines().map(str::trim).collect::<Vec<_>>().join("<br>")
}

#[cfg(test)]
mod tests {
    use crate::report::language::tests::sample;
    use crate::report::tables::{csv, markdown};

    #[test]
    fn the_csv_has_a_line_for_each_number() {
        let csv = csv(&sample());
        assert_eq!(csv.lines().count(), 1 + 2 + 3, "{csv}");
        let line = csv.lines().find(|l| l.starts_with("adapters/taught,\"data/words, test\",,loss,")).unwrap();
        assert!(line.ends_with(",true"), "{line}");
        assert!(csv.contains(",,perplexity-ratio,0.4"), "{csv}");
    }

    #[test]
    fn an_answer_stays_in_its_cell() {
        let md = markdown(&sample());
        assert!(md.contains("| models/base | a tag<br>of HTML \\| and\u{2026} |"), "{md}");
        assert!(md.contains("| adapters/taught | 102.0 | 2.0 |") && md.contains("| 90 of 100 |"), "{md}");
        assert!(md.contains("\u{25bc} |") && !md.contains("R@10"), "{md}");
    }
}
