//! Times in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::measure::estimate::Estimate;
use crate::report::numbers::Numbers;
use crate::report::tables::{Line, table};
use crate::report::timing::page;
use crate::report::timing::words::machine;

/// The lines of the CSV: times in seconds, memory in bytes, ratios to the first subject and to the baseline.
pub fn lines(numbers: &Numbers) -> Vec<Line<'_>> {
    let Some(timing) = &numbers.timing else { return Vec::new() };
    let mut lines = Vec::new();
    for row in &timing.rows {
        let s = &row.summary;
        let alone = |value: Option<f64>| value.map(Estimate::alone);
        let ratio = |value, low, high| Estimate { value, low, high };
        let held = timing.against.iter().flat_map(|against| &against.rows).find(|held| held.subject == row.subject);
        let numbers = [
            ("p50_s", Some(s.p50_s)),
            ("p90_s", alone(Some(s.p90_s))),
            ("p95_s", alone(s.p95_s)),
            ("p99_s", alone(s.p99_s)),
            ("min_s", alone(Some(s.min_s))),
            ("mean_s", alone(Some(s.mean_s))),
            ("max_s", alone(Some(s.max_s))),
            ("cpu_s", Some(s.cpu_s)),
            ("peak_bytes", alone((s.peak_bytes > 0).then_some(s.peak_bytes as f64))),
            ("ratio", row.ratio.map(|r| ratio(r.value, r.low, r.high))),
            ("ratio_to_baseline", held.map(|h| ratio(h.ratio.value, h.ratio.low, h.ratio.high))),
        ];
        for (metric, estimate) in numbers {
            let Some(estimate) = estimate else { continue };
            let subject = &row.subject;
            lines.push(Line {
                subject,
                test: String::new(),
                direction: "",
                metric,
                estimate,
                n: s.rounds,
                difference: None,
            });
        }
    }
    lines
}

/// The sections of the Markdown page.
pub fn markdown(numbers: &Numbers, md: &mut String) {
    let Some(timing) = &numbers.timing else { return };
    let (rounds, warm_up) = (timing.rounds(), timing.warm_up);
    let _ = writeln!(
        md,
        "\nMeasured on: {}. {rounds} rounds after {warm_up} to warm up; in brackets 95 % intervals over the rounds; \u{25b2}: \
         slower than the first beyond noise, \u{25bc}: quicker.\n",
        numbers.machine
    );
    table(numbers, &page::summary(numbers), md);
    if let Some(found) = &timing.against {
        let pace = 100.0 * (found.pace - 1.0);
        let _ = writeln!(
            md,
            "\n## Against the baseline\n\nThe machine's pace is divided out: the probe takes {pace:+.1} % longer now.\n"
        );
        table(numbers, &page::against(timing, found), md);
    }
    let _ = writeln!(md, "\n## The machine meanwhile\n\n| | |\n|---|---|");
    for (name, text) in machine(timing) {
        let _ = writeln!(md, "| {name} | {text} |");
    }
}

#[cfg(test)]
mod tests {
    use crate::report::tables::{csv, markdown};
    use crate::report::timing::tests::sample;

    #[test]
    fn the_tables_have_times_ratios_and_the_machine() {
        let numbers = sample(1.5, &[]);
        let md = markdown(&numbers);
        assert!(md.contains("\n| subject | median, ms | by grep | p90, ms |"), "{md}");
        assert!(md.contains("\u{25b2}") && md.contains("| \u{25b2} slower |") && md.contains("| within |"), "{md}");
        assert!(md.contains("| energy of the processor | not readable here |"), "{md}");
        let csv = csv(&numbers);
        assert_eq!(csv.lines().count(), 1 + 10 + 11, "{csv}");
        assert!(csv.contains("\n<awk>,,,ratio,1.5") && csv.contains("grep,,,peak_bytes,6500000,,,120,,,,\n"), "{csv}");
    }
}
