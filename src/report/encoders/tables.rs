//! Encoders in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::measure::estimate::Estimate;
use crate::report::encoders::page;
use crate::report::encoders::words::{count, encoded_name};
use crate::report::numbers::Numbers;
use crate::report::tables::{Line, sizes_and_speeds, table};

/// The lines of the CSV, models in the order of the tables.
pub fn lines(numbers: &Numbers) -> Vec<Line<'_>> {
    if numbers.encoded.is_empty() {
        return Vec::new();
    }
    let mut lines = Vec::new();
    for encoded in &numbers.encoded {
        for row in numbers.order().into_iter().map(|model| &encoded.rows[model]) {
            let measured = [
                ("distance", row.distance),
                ("least-cosine", Estimate::alone(row.least)),
                ("same-nearest", row.same_nearest),
            ];
            lines.extend(measured.map(|(metric, estimate)| Line {
                subject: &row.subject,
                test: encoded_name(encoded),
                direction: "",
                metric,
                estimate,
                n: encoded.texts + encoded.pictures,
                difference: None,
            }));
        }
    }
    let keys = ["load_ms", "text_p50_ms", "texts_per_s", "picture_p50_ms", "pictures_per_s", "peak_bytes"];
    lines.extend(sizes_and_speeds(numbers, &keys));
    lines
}

/// The sections of the Markdown page.
pub fn markdown(numbers: &Numbers, md: &mut String) {
    let _ = writeln!(
        md,
        "\n## By distance\n\nThe nearest to the original first, by one minus the cosine of their vectors (95 % interval).\n"
    );
    table(numbers, &page::summary(numbers), md);
    for encoded in &numbers.encoded {
        let _ = writeln!(md, "\n## Vectors: {} ({})\n", encoded_name(encoded), count(encoded));
        table(numbers, &page::encoded(numbers, encoded), md);
    }
    if !numbers.machine.is_empty() {
        let _ = writeln!(md, "\nSpeed measured on: {}.", numbers.machine);
    }
}

#[cfg(test)]
mod tests {
    use crate::report::encoders::tests::sample;
    use crate::report::tables::{csv, markdown};

    #[test]
    fn the_tables_have_all_that_was_measured() {
        let numbers = sample();
        let md = markdown(&numbers);
        assert!(md.contains("\n| models/e-int8, recommended | 8.14 | 22.9 | "), "{md}");
        assert!(
            md.contains("\n## Vectors: data/words, test (40 texts)\n") && md.contains("| models/e, the original |"),
            "{md}"
        );
        let csv = csv(&numbers);
        // Of each model three of vectors, and six of size and speed.
        assert_eq!(csv.lines().count(), 1 + 4 * (3 + 6), "{csv}");
        assert!(csv.contains("models/e-4,,,texts_per_s,1100,,,30,,,,\n"), "{csv}");
        assert!(csv.contains("models/e,\"data/words, test\",,least-cosine,1,,,40,,,,\n"), "{csv}");
    }
}
