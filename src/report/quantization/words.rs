//! What to take, in words.

use crate::report::numbers::Numbers;
use crate::report::quantization::{Limit, Quantization, Recommendation};
use crate::report::words::{list, name};

/// What to take within each limit, and what is on the front of size and `distance`; `facts` says of a model, by its place,
/// what is known of it besides its size.
pub fn headline(
    numbers: &Numbers,
    found: &Quantization,
    distance: &str,
    facts: &dyn Fn(usize) -> Vec<String>,
) -> Vec<String> {
    let mut said: Vec<String> = found.limits.iter().map(|r| recommendation(numbers, r, facts)).collect();
    let first = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let front: Vec<String> = found.front.iter().map(|label| name(numbers, label).to_owned()).collect();
    if !front.is_empty() {
        let (are, each) = if front.len() == 1 { ("is", "it is") } else { ("are", "each is") };
        said.push(format!(
            "On the front of size and {distance} {are} {}: {each} nearer to {first} than every smaller model.",
            list(&front)
        ));
    }
    said
}

fn recommendation(numbers: &Numbers, found: &Recommendation, facts: &dyn Fn(usize) -> Vec<String>) -> String {
    let Limit { bytes, kl, cosine } = found.limit;
    let within: Vec<String> = [
        bytes.map(|most| format!("{} MB", megabytes(most))),
        kl.map(|most| format!("a divergence below {most}")),
        cosine.map(|least| format!("a cosine above {least}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let within = list(&within);
    let of = |label: &str| -> String {
        let Some(at) = numbers.subjects.iter().position(|s| s.label == label) else { return String::new() };
        let mut all = vec![format!("{} MB", megabytes(numbers.subjects[at].bytes))];
        all.extend(facts(at));
        all.join(", ")
    };
    match (&found.take, &found.nearest) {
        (Some(label), _) => format!("Within {within} take {}: {}.", name(numbers, label), of(label)),
        (None, Some(label)) => {
            format!("Nothing stays within {within}; {} comes nearest: {}.", name(numbers, label), of(label))
        }
        (None, None) => format!("Nothing stays within {within}."),
    }
}

/// Megabytes as people write them: "70", "73.4", "0.11".
pub fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    let text = if megabytes < 1.0 { format!("{megabytes:.3}") } else { format!("{megabytes:.1}") };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn megabytes_have_no_digits_that_say_nothing() {
        assert_eq!([70_000_000, 73_400_320, 110_000, 4_200].map(megabytes), ["70", "73.4", "0.11", "0.004"]);
    }
}
