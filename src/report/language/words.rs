//! What was found of language models.

use crate::report::language::{Row, Texts};
use crate::report::numbers::{Numbers, PERPLEXITY, SPEED};
use crate::report::quantization::{self, Quantization, distance_text, interval_text};
use crate::report::shown::{PANELS, shown};
use crate::report::words::{list, name};

/// A sentence or two for each text and model.
pub fn headline(numbers: &Numbers) -> Vec<String> {
    let mut said = Vec::new();
    match &numbers.quantization {
        Some(found) => said.extend(by_divergence(numbers, found)),
        None if numbers.has(PERPLEXITY) => said.extend(numbers.texts.iter().flat_map(|t| perplexity(numbers, t))),
        None => {}
    }
    said.extend(sizes(numbers));
    said
}

/// What to take, and whom perplexity would prefer to the original.
fn by_divergence(numbers: &Numbers, found: &Quantization) -> Vec<String> {
    let Some(texts) = numbers.texts.first() else { return Vec::new() };
    let first = name(numbers, &texts.rows[0].subject);
    let facts = |at: usize| {
        let (subject, row) = (&numbers.subjects[at], &texts.rows[at]);
        let kl = row
            .divergence
            .filter(|kl| kl.value > 0.0)
            .map(|kl| format!("KL divergence {} (95\u{a0}% interval {})", distance_text(kl.value), interval_text(kl)));
        let same = row.same_top.map(|same| format!("the same top token {:.1}\u{a0}% of the time", 100.0 * same.value));
        let speed = numbers.has(SPEED).then(|| {
            let [own, first] = [subject, &numbers.subjects[0]].map(|s| s.speed("generation_tokens_per_s"));
            format!("{own:.1} tokens/s generated ({}: {first:.1})", numbers.subjects[0].name)
        });
        [kl, same, speed].into_iter().flatten().collect()
    };
    let mut said = quantization::words::headline(numbers, found, "divergence", &facts);
    let lower = texts.rows[1..].iter().filter(|row| row.perplexity.value < texts.rows[0].perplexity.value);
    let lower: Vec<String> = lower.map(|row| name(numbers, &row.subject).to_owned()).collect();
    if numbers.has(PERPLEXITY) && !lower.is_empty() {
        said.push(format!(
            "By perplexity {} would pass for better than {first}: what ranks models is their divergence from it.",
            list(&lower)
        ));
    }
    said
}

/// A perplexity to three figures, or all before the point.
pub fn perplexity_text(value: f64) -> String {
    match value {
        v if v >= 1e7 => format!("{v:.1e}"),
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// "data/definitions, test".
pub fn texts_name(texts: &Texts) -> String {
    format!("{}, {}", texts.on, texts.split)
}

fn perplexity(numbers: &Numbers, texts: &Texts) -> Vec<String> {
    let [first, others @ ..] = &texts.rows[..] else { return Vec::new() };
    let before = perplexity_text(first.perplexity.value);
    let mut said = Vec::new();
    // Of very many, the best one; the others are counted.
    let is_many = others.len() >= PANELS;
    let best = shown(numbers, 2);
    for (_, row) in others.iter().enumerate().filter(|(i, _)| !is_many || best.contains(&(i + 1))) {
        let after = perplexity_text(row.perplexity.value);
        let Some(((ratio, d), better)) = row.ratio.zip(row.difference).zip(row.better) else { continue };
        let percent = |share: f64| format!("{:.1}\u{a0}%", 100.0 * share);
        let interval = format!("95\u{a0}% interval {} to {}", percent(ratio.low), percent(ratio.high));
        let (on, who, whom) = (texts_name(texts), name(numbers, &row.subject), name(numbers, &first.subject));
        said.push(match d.sign() {
            0 => format!(
                "On \u{201c}{on}\u{201d} perplexity is {before} with {whom} and {after} with {who}: {} of it, within \
                 noise ({interval}, record by record).",
                percent(ratio.value)
            ),
            sign => format!(
                "On \u{201c}{on}\u{201d} perplexity {} from {before} with {whom} to {after} with {who}: to {} of it, \
                 beyond noise ({interval}, record by record).",
                if sign < 0 { "falls" } else { "rises" },
                percent(ratio.value)
            ),
        });
        let share = format!("foresees {better} of {} records better", texts.records);
        said.push(match d.sign() {
            0 => format!("{who} {share}."),
            _ => format!(
                "So {who} is as unsure of the next token as of a fair choice among {after}, where {whom} is among \
                 {before}; it {share}."
            ),
        });
    }
    if is_many {
        let signs = |sign: i8| others.iter().filter(|row| row.difference.is_some_and(|d| d.sign() == sign)).count();
        said.push(format!(
            "Of {} models beside {}, {} foresee \u{201c}{}\u{201d} better beyond noise, and {} worse; one in twenty would by luck.",
            others.len(),
            name(numbers, &first.subject),
            signs(-1),
            texts_name(texts),
            signs(1)
        ));
    }
    if others.is_empty() {
        said.push(alone(numbers, texts, first));
    }
    said
}

fn alone(numbers: &Numbers, texts: &Texts, row: &Row) -> String {
    format!(
        "On \u{201c}{}\u{201d} the perplexity of {} is {} (95\u{a0}% interval {} to {}, {} records).",
        texts_name(texts),
        name(numbers, &row.subject),
        perplexity_text(row.perplexity.value),
        perplexity_text(row.perplexity.low),
        perplexity_text(row.perplexity.high),
        texts.records
    )
}

/// What each adapter adds to its base.
fn sizes(numbers: &Numbers) -> Vec<String> {
    let adds = |s: &crate::report::numbers::Subject| {
        let (base, own) = s.base.as_deref().zip(s.own_bytes)?;
        let (own, whole) = (own as f64 / 1e6, s.bytes.saturating_sub(own) as f64 / 1e6);
        Some(format!("{} adds {own:.1} MB to the {whole:.1} MB of {}.", s.name, name(numbers, base)))
    };
    // Of very many, the best one.
    let told = shown(numbers, if numbers.subjects.len() > PANELS { 2 } else { PANELS });
    told.into_iter().filter_map(|i| adds(&numbers.subjects[i])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::language::{row, tests::sample};

    #[test]
    fn what_to_take_is_said_first() {
        let mut numbers = quantization::tests::sample();
        let said = headline(&numbers);
        assert_eq!(said.len(), 5, "{said:?}");
        assert!(
            said[0].starts_with("Within 80 MB take smollm2-q4-gptq: 75.9 MB, KL divergence 1.72\u{a0}"),
            "{said:?}"
        );
        assert!(said[0].ends_with(", 52.3 tokens/s generated (smollm2: 14.2)."), "{said:?}");
        assert!(said[1].starts_with("Within a divergence below 0.01 take smollm2-Q5_0: 93.2 MB, "), "{said:?}");
        let nothing = "Nothing stays within 60 MB and a divergence below 0.05; smollm2-q3-gptq comes nearest: 59 MB, ";
        assert!(said[2].starts_with(nothing), "{said:?}");
        assert!(
            said[3].starts_with("On the front of size and divergence are smollm2-q2, smollm2-q3-gptq, "),
            "{said:?}"
        );
        assert!(
            said[4].starts_with("By perplexity smollm2-q6 and smollm2-Q8_0 would pass for better than smollm2:"),
            "{said:?}"
        );
        numbers.metrics.retain(|metric| metric != PERPLEXITY);
        assert_eq!(headline(&numbers).len(), 4, "of what was not asked nothing is said");
    }

    #[test]
    fn the_headline_says_from_where_to_where() {
        let said = headline(&sample());
        assert!(
            said[0].starts_with("On \u{201c}data/words, test\u{201d} perplexity falls from 30.6 with base"),
            "{said:?}"
        );
        assert!(
            said[0].contains("beyond noise (95\u{a0}% interval") && said[0].contains("with taught: to 4"),
            "{said:?}"
        );
        assert!(said[1].ends_with("; it foresees 90 of 100 records better."), "{said:?}");
        assert_eq!(said[2], "taught adds 2.0 MB to the 100.0 MB of base.");
    }

    #[test]
    fn what_is_within_noise_neither_falls_nor_rises() {
        let mut numbers = sample();
        let texts = &mut numbers.texts[0];
        let losses: Vec<(f64, usize)> = (0..100).map(|i| (f64::from(i % 7), 5)).collect();
        let moved: Vec<(f64, usize)> =
            losses.iter().enumerate().map(|(i, l)| (l.0 + [0.5, -0.5][i % 2], l.1)).collect();
        texts.rows = vec![row("models/base", &losses, None, 7), row("adapters/taught", &moved, Some(&losses), 7)];
        let said = headline(&numbers);
        assert!(said[0].contains(", within noise (95\u{a0}% interval") && !said[0].contains("falls"), "{said:?}");
        numbers.texts[0].rows.truncate(1);
        numbers.subjects.truncate(1);
        let said = headline(&numbers);
        assert!(said.len() == 1 && said[0].contains("the perplexity of base is"), "{said:?}");
    }

    #[test]
    fn perplexities_have_three_figures() {
        assert_eq!(
            [1.0, 15.08, 84.3, 123.4, 99.96, 12345.6].map(perplexity_text),
            ["1.00", "15.1", "84.3", "123", "100", "12346"]
        );
    }
}
