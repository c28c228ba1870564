//! What a report found, in words made from its numbers. Says plainly when nothing stands out.

use crate::measure::estimate::Difference;
use crate::report::numbers::{Numbers, Of};
use crate::report::{encoders, language, predictions, retrieval, timing, told};

/// A sentence or two for each thing worth knowing first.
pub fn headline(numbers: &Numbers) -> Vec<String> {
    [
        retrieval::words::headline(numbers),
        language::words::headline(numbers),
        encoders::words::headline(numbers),
        told::words::headline(numbers),
        predictions::words::headline(numbers),
        timing::words::headline(numbers),
    ]
    .concat()
}

/// How many models, and on what.
pub fn about(numbers: &Numbers) -> String {
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let on = [
        (numbers.tests.len(), "test set", "test sets"),
        (numbers.zero_shot.len(), "zero-shot classification", "zero-shot classifications"),
        (numbers.texts.len(), "set of texts", "sets of texts"),
        (numbers.answers.len(), "question", "questions"),
        (numbers.encoded.len(), "dataset", "datasets"),
    ];
    let on: Vec<String> = on.into_iter().filter(|(n, ..)| *n > 0).map(|(n, one, many)| count(n, one, many)).collect();
    if let Some(timing) = &numbers.timing {
        let workloads = timing.groups().iter().filter(|group| group.workload.is_some()).count();
        let subjects = match workloads {
            0 => count(numbers.subjects.len(), "program", "programs"),
            n => {
                let subjects = count(numbers.subjects.len(), "subject", "subjects");
                format!("{subjects} on {}", count(n, "workload", "workloads"))
            }
        };
        return format!("{subjects}, {}.", count(timing.rounds(), "round", "rounds"));
    }
    let targets = || count(numbers.subjects.len(), "target", "targets");
    if numbers.of == Of::Told {
        return format!("{}, {}.", targets(), count(numbers.told.len(), "number", "numbers"));
    }
    if let Some(predicted) = &numbers.predicted {
        let of_what = match predicted.classes.len() {
            0 => String::new(),
            classes => format!(" of {}", count(classes, "class", "classes")),
        };
        return format!("{} on {}{of_what}.", targets(), count(predicted.items, "item", "items"));
    }
    let models = count(numbers.subjects.len(), "model", "models");
    if on.is_empty() { format!("{models}.") } else { format!("{models} on {}.", list(&on)) }
}

/// A text without line breaks.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text that fits its place, of so many characters at most.
pub fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['\u{2026}']).collect()
}

/// A signed number with a real minus, and no sign at 0.
pub fn signed(value: f64) -> String {
    match format!("{:.3}", value.abs()).as_str() {
        "0.000" => "0.000".into(),
        digits if value < 0.0 => format!("\u{2212}{digits}"),
        digits => format!("+{digits}"),
    }
}

/// A signed difference with its interval.
pub fn difference(d: &Difference) -> String {
    format!("{}, {} to {}", signed(d.value), signed(d.low), signed(d.high))
}

/// A model's short name.
pub fn name<'a>(numbers: &'a Numbers, label: &'a str) -> &'a str {
    numbers.subjects.iter().find(|s| s.label == label).map_or(label, |s| s.name.as_str())
}

/// Words of a list, at most: more are not read.
const LIST: usize = 16;

/// "a", "a and b", "a, b and c"; of very many the first ones, "and 90 more".
pub fn list(words: &[String]) -> String {
    match words {
        [..] if words.len() > LIST => {
            let rest = words.len() - (LIST - 4);
            format!("{} and {rest} more", words[..LIST - 4].join(", "))
        }
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_plain() {
        assert_eq!([signed(0.0204), signed(-0.5), signed(-0.0001)], ["+0.020", "\u{2212}0.500", "0.000"]);
    }

    #[test]
    fn what_a_report_is_of_is_said() {
        assert_eq!(about(&retrieval::tests::sample()), "3 models on 1 test set and 1 zero-shot classification.");
        assert_eq!(about(&language::tests::sample()), "2 models on 1 set of texts and 1 question.");
    }

    #[test]
    fn a_list_of_very_many_is_cut() {
        let words: Vec<String> = (0..17).map(|i| i.to_string()).collect();
        assert_eq!(list(&words[..3]), "0, 1 and 2");
        assert!(list(&words[..16]).ends_with(", 14 and 15"));
        assert_eq!(list(&words), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 5 more");
    }

    #[test]
    fn texts_are_cut_by_characters() {
        assert_eq!(cut("caf\u{e9}", 4), "caf\u{e9}");
        assert_eq!(cut("caf\u{e9}s", 4), "caf\u{2026}");
    }
}
