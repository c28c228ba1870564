//! What was found by retrieval and zero-shot classification.

use crate::report::numbers::Numbers;
use crate::report::retrieval::{Row, Test};
use crate::report::words::{difference, list, name, signed};

/// A sentence or two for each thing worth knowing first.
pub fn headline(numbers: &Numbers) -> Vec<String> {
    let mut said = Vec::new();
    if let Some(test) = numbers.tests.first() {
        said.extend(best(numbers, test).into_iter().flatten());
    }
    said.extend(apart(numbers));
    said.extend(quantized(numbers));
    said.extend(zero_shot(numbers));
    said
}

fn r10(row: &Row) -> f64 {
    row.t2i["recall@10"].value
}

fn best(numbers: &Numbers, test: &Test) -> Option<[String; 2]> {
    let best = test.rows.iter().reduce(|best, row| if r10(row) > r10(best) { row } else { best })?;
    let e = best.t2i["recall@10"];
    let first = name(numbers, &numbers.subjects.first()?.label);
    let verdict = if let Some(d) = best.difference("recall@10") {
        let (joint, verdict) = if d.stands_out { ("and", "beyond") } else { ("but", "within") };
        format!(", {joint} its lead over {first}, the first model, is {verdict} noise ({})", difference(&d))
    } else if test.rows.len() > 1 {
        let below: Vec<String> = test
            .rows
            .iter()
            .filter(|row| row.difference("recall@10").is_some_and(|d| d.sign() < 0))
            .map(|row| name(numbers, &row.subject).to_owned())
            .collect();
        match &below[..] {
            [] => ", but no other model is below it beyond noise".to_owned(),
            some => format!("; below it beyond noise: {}", list(some)),
        }
    } else {
        String::new()
    };
    let headline = format!(
        "On \u{201c}{}\u{201d} {} has the highest R@10, {:.3}{verdict}.",
        test.name,
        name(numbers, &best.subject),
        e.value
    );
    let meaning = format!(
        "So for {:.1} % of the captions it finds the right picture among the first ten of {} (95 % interval {:.1} to \
         {:.1} %; by chance {:.1} %).",
        100.0 * e.value,
        test.n,
        100.0 * e.low,
        100.0 * e.high,
        100.0 * test.chance
    );
    Some([headline, meaning])
}

/// Which differences from the first model stand out, over all tests.
fn apart(numbers: &Numbers) -> Option<String> {
    let first = name(numbers, &numbers.subjects.first()?.label);
    let others = &numbers.subjects[1..];
    if others.is_empty() || numbers.tests.is_empty() {
        return None;
    }
    let signs = |label: &str, wanted: i8| {
        let rows = numbers.tests.iter().flat_map(|t| &t.rows).filter(|row| row.subject == label);
        rows.flat_map(|row| row.difference.iter().flatten()).filter(|(_, d)| d.sign() == wanted).count()
    };
    let all = others.len() * numbers.tests.len() * 2;
    let mut found = 0;
    let mut parts = Vec::new();
    for subject in others {
        for (wanted, word) in [(-1, "lower"), (1, "higher")] {
            let n = signs(&subject.label, wanted);
            found += n;
            if n > 0 {
                parts.push(format!("{} is {word} in {n}", subject.name));
            }
        }
    }
    let tests =
        if numbers.tests.len() == 1 { "the test".to_owned() } else { format!("all {} tests", numbers.tests.len()) };
    Some(if found == 0 {
        format!(
            "Nothing stands out: over {tests} none of {all} differences from {first} in R@1 and R@10 is beyond noise."
        )
    } else {
        let verb = if found == 1 { "is" } else { "are" };
        format!(
            "Over {tests}, {found} of {all} differences from {first} in R@1 and R@10 {verb} beyond noise, \
             where one in twenty would be by luck: {}.",
            list(&parts)
        )
    })
}

fn quantized(numbers: &Numbers) -> Vec<String> {
    let mut said = Vec::new();
    for cost in &numbers.quantized {
        let size = |label: &str| numbers.subjects.iter().find(|s| s.label == label).map_or(0.0, |s| s.megabytes());
        let (small, large) = (size(&cost.subject), size(&cost.against));
        let against = name(numbers, &cost.against);
        let mut text = format!(
            "{} ({} bits) is {small:.1} MB where {against} is {large:.1}: {:.1} MB saved.",
            name(numbers, &cost.subject),
            cost.bits,
            cost.saved_bytes as f64 / 1e6
        );
        if let (Some(first), Some(test)) = (cost.differences.first(), numbers.tests.first()) {
            let verdict = if first.stands_out { "beyond noise" } else { "within noise" };
            text += &format!(
                " On \u{201c}{}\u{201d} its R@10 differs by {} ({} to {}), {verdict}",
                test.name,
                signed(first.value),
                signed(first.low),
                signed(first.high)
            );
            let rest = &cost.differences[1..];
            let worse = rest.iter().filter(|d| d.sign() < 0).count();
            text += &match (rest.len(), worse) {
                (0, _) => ".".to_owned(),
                (n, 0) => format!("; on none of the {n} other tests is it lower beyond noise."),
                (n, w) => format!("; on {w} of the {n} other tests it is lower beyond noise."),
            };
        }
        said.push(text);
    }
    said
}

fn zero_shot(numbers: &Numbers) -> Vec<String> {
    let mut said = Vec::new();
    for zero in &numbers.zero_shot {
        let best = zero.rows.iter().reduce(|b, row| if row.accuracy.value > b.accuracy.value { row } else { b });
        let Some(best) = best else { continue };
        let apart = zero.rows.iter().filter(|row| row.difference.is_some_and(|d| d.stands_out)).count();
        let noise = match (zero.rows.len(), apart) {
            (1, _) => String::new(),
            (_, 0) => " No model differs from the first beyond noise.".into(),
            (_, 1) => " One model differs from the first beyond noise.".into(),
            (_, n) => format!(" {n} models differ from the first beyond noise."),
        };
        let caution = match best.accuracy.low > zero.majority {
            true => "",
            false => " It is not shown to beat always naming the largest class.",
        };
        said.push(format!(
            "Zero-shot by {}: {:.1} % at best ({}), where chance is {:.1} % and always naming the largest class is \
             right for {:.1} %.{caution}{noise}",
            zero.column,
            100.0 * best.accuracy.value,
            name(numbers, &best.subject),
            100.0 * zero.chance,
            100.0 * zero.majority
        ));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::retrieval::tests::sample;

    #[test]
    fn the_headline_names_the_best_and_what_is_beyond_noise() {
        let said = headline(&sample());
        assert!(said[0].contains("\u{201c}unseen\u{201d} a has the highest R@10, 0.700"), "{said:?}");
        assert!(said[0].ends_with("below it beyond noise: b-q4."), "{said:?}");
        assert!(said[1].starts_with("So for 70.0 % of the captions"), "{said:?}");
        assert!(said[2].contains("2 of 4 differences") && said[2].ends_with("b-q4 is lower in 2."), "{said:?}");
        assert!(said[3].contains("110.0 MB saved") && said[3].contains("differs by \u{2212}0.480"), "{said:?}");
        assert!(said[4].contains("not shown to beat"), "{said:?}");
    }

    #[test]
    fn nothing_standing_out_is_said() {
        let mut numbers = sample();
        for row in &mut numbers.tests[0].rows {
            row.difference.iter_mut().flat_map(|d| d.values_mut()).for_each(|d| d.stands_out = false);
        }
        let said = headline(&numbers);
        assert!(said[0].ends_with("but no other model is below it beyond noise."), "{said:?}");
        assert!(said[2].starts_with("Nothing stands out: over the test none of 4"), "{said:?}");
    }
}
