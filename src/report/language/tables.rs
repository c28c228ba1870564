//! Language models in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::report::language::words::{perplexity_text, texts_name};
use crate::report::language::{Row, Texts, page};
use crate::report::numbers::{ACCURACY, KL, Numbers, Of, PERPLEXITY, SPEED};
use crate::report::quantization::{distance_text, interval_text};
use crate::report::shown::{PANELS, ROWS, shown};
use crate::report::tables::{Line, best, bold, mark, sizes_and_speeds, table};
use crate::report::words;

/// The lines of the CSV, models in the order of the tables.
pub fn lines(numbers: &Numbers) -> Vec<Line<'_>> {
    if numbers.of != Of::Language {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for texts in &numbers.texts {
        for row in numbers.order().into_iter().map(|model| &texts.rows[model]) {
            let line = |metric, estimate, difference| Line {
                subject: &row.subject,
                test: texts_name(texts),
                direction: "",
                metric,
                estimate,
                n: texts.records,
                difference,
            };
            if numbers.has(PERPLEXITY) {
                lines.push(line(PERPLEXITY, row.perplexity, None));
                lines.push(line("loss", row.loss, row.difference));
                lines.extend(row.ratio.map(|ratio| line("perplexity-ratio", ratio, None)));
            }
            let more = [(KL, row.divergence), ("same-top", row.same_top), (ACCURACY, row.accuracy)];
            lines.extend(more.into_iter().filter_map(|(metric, estimate)| Some(line(metric, estimate?, None))));
        }
    }
    let keys = ["load_ms", "prompt_tokens_per_s", "generation_tokens_per_s", "peak_bytes"];
    lines.extend(sizes_and_speeds(numbers, &keys));
    lines
}

/// The sections of the Markdown page.
pub fn markdown(numbers: &Numbers, md: &mut String) {
    if numbers.quantization.is_some() {
        let _ = writeln!(
            md,
            "\n## By divergence\n\nThe nearest to the original first, by KL divergence (95 % interval) and not by perplexity, where \
             errors of rounding cancel: a rounded model may even seem better.\n"
        );
        table(numbers, &page::summary(numbers), md);
    }
    for texts in &numbers.texts {
        let title = if numbers.has(PERPLEXITY) { "Perplexity" } else { "Texts" };
        let (name, records, tokens) = (texts_name(texts), texts.records, texts.tokens);
        let _ = writeln!(md, "\n## {title}: {name} (n = {records} records, {tokens} tokens)\n");
        text(numbers, texts, md);
    }
    let _ = writeln!(md, "\n## Size\n\n| model | MB | of its own |\n|---|--:|--:|");
    for s in shown(numbers, ROWS).into_iter().map(|i| &numbers.subjects[i]) {
        let _ = writeln!(md, "| {} | {:.1} | {:.1} |", s.label, s.megabytes(), s.own_megabytes());
    }
    if numbers.has(SPEED) && numbers.quantization.is_none() {
        let _ = writeln!(md, "\n## Speed\n\nMeasured on: {}.\n", numbers.machine);
        table(numbers, &page::speed(numbers), md);
    }
    if !numbers.answers.is_empty() {
        let _ = writeln!(md, "\n## Answers");
    }
    for asked in &numbers.answers {
        let _ = writeln!(md, "\n{}\n\n| model | answer |\n|---|---|", cell(&words::one_line(&asked.prompt)));
        for (subject, answer) in shown(numbers, PANELS).into_iter().map(|i| (&numbers.subjects[i], &asked.answers[i])) {
            let text = if answer.text.trim().is_empty() { "*an empty answer*".into() } else { cell(&answer.text) };
            let end = if answer.cut { "\u{2026}" } else { "" };
            let _ = writeln!(md, "| {} | {text}{end} |", subject.label);
        }
    }
}

/// What each model foresees of a text.
fn text(numbers: &Numbers, texts: &Texts, md: &mut String) {
    let mut heads = Vec::new();
    if numbers.has(PERPLEXITY) {
        heads.extend(["perplexity", "95 % interval", "loss, nats a token", "ratio to the first", "better on"]);
    }
    let more =
        |row: &Row| [("KL divergence, nats", row.divergence), ("same top", row.same_top), (ACCURACY, row.accuracy)];
    let measured = more(&texts.rows[0]).into_iter().filter(|(_, estimate)| estimate.is_some());
    heads.extend(measured.map(|(name, _)| name));
    let _ = writeln!(md, "| model | {} |\n|---|{}", heads.join(" | "), "--:|".repeat(heads.len()));
    let bests = best(&texts.rows.iter().map(|row| row.perplexity.value).collect::<Vec<_>>(), false);
    let shown = shown(numbers, ROWS);
    for model in numbers.order().into_iter().filter(|model| shown.contains(model)) {
        let row = &texts.rows[model];
        let mut cells = Vec::new();
        if numbers.has(PERPLEXITY) {
            let p = row.perplexity;
            let best = bests[model] && numbers.quantization.is_none();
            cells.push(format!("{}{}", bold(&perplexity_text(p.value), best), mark(row.difference)));
            cells.push(format!("{} to {}", perplexity_text(p.low), perplexity_text(p.high)));
            cells.push(format!("{:.3}", row.loss.value));
            cells.push(row.ratio.map_or(String::new(), |r| format!("{:.3}, {:.3} to {:.3}", r.value, r.low, r.high)));
            cells.push(row.better.map_or(String::new(), |n| format!("{n} of {}", texts.records)));
        }
        for (name, estimate) in more(row) {
            let Some(e) = estimate else { continue };
            cells.push(match name {
                ACCURACY | "same top" => format!("{:.3}, {:.3} to {:.3}", e.value, e.low, e.high),
                _ => format!("{} {}", distance_text(e.value), interval_text(e)).trim_end().to_owned(),
            });
        }
        let _ = writeln!(md, "| {} | {} |", row.subject, cells.join(" | "));
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
    use crate::report::quantization;
    use crate::report::tables::{csv, markdown};

    #[test]
    fn the_tables_of_a_quantization_have_all_that_was_measured() {
        let numbers = quantization::tests::sample();
        let md = markdown(&numbers);
        let line = md.lines().find(|l| l.starts_with("| models/smollm2-q4-gptq, recommended |")).expect("a line");
        assert!(
            line.contains("| 4.51 | 75.9 | 1.72\u{a0}\u{d7}\u{a0}10\u{207b}\u{b2} (1.60\u{2013}1.84\u{a0}\u{d7}\u{a0}10\u{207b}\u{b2}) |"),
            "{line}"
        );
        assert!(line.ends_with("| 190 | 186.0 | **52.3** | 167 |"), "{line}");
        let csv = csv(&numbers);
        // Of each model six of texts, or five of the original, and six of size and speed.
        assert_eq!(csv.lines().count(), 1 + 14 * (6 + 6) - 1, "{csv}");
        assert!(csv.contains("models/smollm2-q4,,,generation_tokens_per_s,52.1,,,5,,,,\n"), "{csv}");
        assert!(csv.contains("models/smollm2,\"data/definitions, test\",,kl,0,0,0,40,"), "{csv}");
    }

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
        assert!(md.contains("| adapters/taught | *an empty answer* |") && md.contains("\nWhat is &lt;b>?\n"), "{md}");
        assert!(md.contains("\u{25bc} |") && !md.contains("R@10"), "{md}");
    }
}
