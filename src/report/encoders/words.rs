//! What was found of encoders.

use crate::report::encoders::Encoded;
use crate::report::numbers::{Numbers, SPEED};
use crate::report::quantization;

/// What to take within each limit, and what is on the front; or how near each model is.
pub fn headline(numbers: &Numbers) -> Vec<String> {
    let (Some(encoded), Some(found)) = (numbers.encoded.first(), &numbers.quantization) else { return Vec::new() };
    let first = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let speed = speed_of(encoded);
    let facts = |at: usize| {
        let row = &encoded.rows[at];
        let mut facts = Vec::new();
        if at > 0 {
            facts.push(format!(
                "cosine {} to {first} ({} at the least)",
                cosine_text(1.0 - row.distance.value),
                cosine_text(row.least)
            ));
            facts.push(format!("the same nearest neighbour {:.1}\u{a0}% of the time", 100.0 * row.same_nearest.value));
        }
        if numbers.has(SPEED) {
            let [own, of_first] = [&numbers.subjects[at], &numbers.subjects[0]].map(|s| s.speed(speed.key));
            facts.push(format!("{own:.0} {} ({first}: {of_first:.0})", speed.unit));
        }
        facts
    };
    quantization::words::headline(numbers, found, "distance", &facts)
}

/// How the quickness of encoders is known and called.
pub struct Speed {
    /// In `speed.json`.
    pub key: &'static str,
    /// "texts/s".
    pub unit: &'static str,
    /// Below the scale of a plot.
    pub name: &'static str,
}

/// By texts where there are any.
pub fn speed_of(encoded: &Encoded) -> Speed {
    match encoded.texts {
        0 => Speed { key: "pictures_per_s", unit: "pictures/s", name: "pictures encoded a second" },
        _ => Speed { key: "texts_per_s", unit: "texts/s", name: "texts encoded a second" },
    }
}

/// A cosine near 1: "0.99981".
pub fn cosine_text(cosine: f64) -> String {
    format!("{cosine:.5}")
}

/// "353 texts and 353 pictures".
pub fn count(encoded: &Encoded) -> String {
    let parts = [(encoded.texts, "texts"), (encoded.pictures, "pictures")];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    parts.join(" and ")
}

/// "data/emoji, test".
pub fn encoded_name(encoded: &Encoded) -> String {
    format!("{}, {}", encoded.on, encoded.split)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::encoders::tests::sample;

    #[test]
    fn what_to_take_is_said_first() {
        let mut numbers = sample();
        let said = headline(&numbers);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("Within 20 MB take e-4: 13.5 MB, cosine 0.9"), "{said:?}");
        assert!(said[0].ends_with("% of the time, 1100 texts/s (e: 900)."), "{said:?}");
        assert!(said[1].starts_with("Within a cosine above 0.99 take e-int8: 22.9 MB, cosine 0.99"), "{said:?}");
        assert!(said[2].starts_with("On the front of size and distance are e-4, e-int8 and e-8: "), "{said:?}");
        numbers.metrics.pop();
        assert!(!headline(&numbers).concat().contains("texts/s"), "of what was not asked nothing is said");
    }

    #[test]
    fn what_is_encoded_is_counted() {
        let mut encoded = sample().encoded.remove(0);
        assert_eq!(count(&encoded), "40 texts");
        encoded.pictures = 3;
        assert_eq!(count(&encoded), "40 texts and 3 pictures");
        encoded.texts = 0;
        assert_eq!((count(&encoded), speed_of(&encoded).unit), ("3 pictures".into(), "pictures/s"));
    }
}
