//! Times in `report.csv` and `report.md`.

use std::fmt::Write;

use crate::measure::estimate::Estimate;
use crate::measure::summary::Ratio;
use crate::report::numbers::Numbers;
use crate::report::tables::{Line, table};
use crate::report::timing::page;
use crate::report::timing::words::machine;

/// The lines of the CSV: times in seconds, memory in bytes, ratios to the first subject and to the baseline.
pub fn lines(numbers: &Numbers) -> Vec<Line<'_>> {
    let Some(timing) = &numbers.timing else { return Vec::new() };
    let mut lines = Vec::new();
    let held = timing.against.iter().flat_map(|against| &against.rows).map(Some).chain(std::iter::repeat(None));
    for (row, held) in timing.rows.iter().zip(held) {
        let s = &row.summary;
        let alone = |value: Option<f64>| value.map(Estimate::alone);
        let by = |ratio: Ratio| Estimate { value: ratio.value, low: ratio.low, high: ratio.high };
        let bytes = |bytes: u64| alone((bytes > 0).then_some(bytes as f64));
        let memory = row.model.as_ref().and_then(|model| model.memory);
        let mut found = vec![
            ("p50_s", Some(s.p50_s)),
            ("p90_s", alone(Some(s.p90_s))),
            ("p95_s", alone(s.p95_s)),
            ("p99_s", alone(s.p99_s)),
            ("min_s", alone(Some(s.min_s))),
            ("mean_s", alone(Some(s.mean_s))),
            ("max_s", alone(Some(s.max_s))),
            ("cpu_s", Some(s.cpu_s)),
            ("peak_bytes", bytes(s.peak_bytes)),
            ("ratio", row.ratio.map(by)),
            ("ratio_to_backend", row.by_backend.map(by)),
            ("ratio_to_baseline", held.map(|held| by(held.ratio))),
            ("first_s", row.first_s),
            ("weight_bytes", memory.and_then(|memory| bytes(memory.weight_bytes))),
            ("resident_bytes", memory.and_then(|memory| bytes(memory.resident_bytes))),
            ("load_peak_bytes", memory.and_then(|memory| bytes(memory.load_peak_bytes))),
            ("token_bytes", memory.and_then(|memory| bytes(memory.token_bytes?))),
        ];
        found.extend(row.rates.iter().map(|rate| (rate.metric(), Some(rate.per_s))));
        for (metric, estimate) in found {
            let Some(estimate) = estimate else { continue };
            lines.push(Line {
                subject: &numbers.subjects[row.place].label,
                test: row.model.as_ref().map_or_else(String::new, |model| model.workload.name.clone()),
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
    let set_aside = match timing.set_aside {
        0 => String::new(),
        set_aside => format!(", {set_aside} more set aside beside a slow probe"),
    };
    let _ = writeln!(
        md,
        "\nMeasured on: {}. {rounds} rounds after {warm_up} to warm up{set_aside}; in brackets 95 % intervals over the rounds; \u{25b2}: \
         slower than the first beyond noise, \u{25bc}: quicker.\n",
        numbers.machine
    );
    for (number, (title, of_workload)) in page::summaries(numbers).into_iter().enumerate() {
        if !title.is_empty() {
            let _ = writeln!(md, "{}## {title}\n", if number > 0 { "\n" } else { "" });
        }
        table(numbers, &of_workload, md);
    }
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
    use crate::report::timing::tests::{models, sample};

    #[test]
    fn each_workload_has_a_table() {
        let numbers = models();
        let md = markdown(&numbers);
        assert!(
            md.contains(
                "\n## chat: prompt=256 generate=64\n\n| subject | median, s | by f32 | by candle | first token, ms |"
            ),
            "{md}"
        );
        assert!(md.contains("prompt tokens/s | generated tokens/s |") && md.contains("| <q4> on mlx | "), "{md}");
        assert!(md.contains("90.0 beyond the weights") && md.contains("| f32 on candle, chat |"), "{md}");
        let csv = csv(&numbers);
        assert!(
            csv.contains("\n<q4> on mlx,chat,,ratio_to_backend,0.")
                && csv.contains("\nf32 on candle,chat,,generated_tokens_per_s,5"),
            "{csv}"
        );
        assert!(csv.contains("\nf32 on candle,cold,,peak_bytes,900000000,"), "{csv}");
    }

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
