//! What was found among told numbers.

use crate::report::numbers::Numbers;
use crate::report::told::{Front, Told};
use crate::report::words::{list, name};

/// Of each number that has a better end, whose is the best; then who did not tell which.
pub fn headline(numbers: &Numbers) -> Vec<String> {
    let best = numbers.told.iter().filter_map(|told| best(numbers, told));
    let fronts = numbers.fronts.iter().map(|front| says(numbers, front));
    best.chain(fronts).chain(missing(numbers)).collect()
}

fn best(numbers: &Numbers, told: &Told) -> Option<String> {
    let best = told.best()?;
    let (first, others) = told.rows.split_first()?;
    let is_best = |value: Option<f64>| value.is_some_and(|value| as_shown(value) == best);
    let top: Vec<&str> =
        told.rows.iter().filter(|row| is_best(row.value)).map(|row| name(numbers, &row.subject)).collect();
    let (what, text) = (&told.name, value_text(best));
    let said = told.rows.iter().filter(|row| row.value.is_some()).count();
    if top.len() == said {
        return Some(format!("{what}: the same of all, {text}."));
    }
    let are = if top.len() == 1 { "is" } else { "are" };
    let top = list(&top.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let against = match first.value {
        Some(value) if !is_best(first.value) => Some((first, value)),
        _ => {
            let rest = others.iter().filter(|row| !is_best(row.value)).filter_map(|row| Some((row, row.value?)));
            rest.reduce(|a, b| if told.better.is_some_and(|better| better.prefers(b.1, a.1)) { b } else { a })
        }
    };
    let against = against.map(|(row, value)| format!("; {} has {}", name(numbers, &row.subject), value_text(value)));
    Some(format!("{what}: {top} {are} best with {text}{}.", against.unwrap_or_default()))
}

/// Who is on a front.
pub(super) fn says(numbers: &Numbers, front: &Front) -> String {
    let (across, up) = (&front.across, &front.up);
    let names: Vec<String> = front.unbeaten.iter().map(|label| name(numbers, label).to_owned()).collect();
    match &names[..] {
        [] => format!("{across} against {up}: no {} told both.", numbers.noun()),
        [one] => format!("{across} against {up}: {one} is the best in both."),
        _ => format!("{across} against {up}: no other is below {} in both.", either(&names)),
    }
}

/// "a, b or c".
fn either(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// Who told which not, in one sentence for those that lack the same.
fn missing(numbers: &Numbers) -> Vec<String> {
    let mut all: Vec<(Vec<String>, Vec<String>)> = Vec::new();
    for (at, subject) in numbers.subjects.iter().enumerate() {
        let lacks = numbers.told.iter().filter(|told| told.rows[at].value.is_none());
        let lacks: Vec<String> = lacks.map(|told| format!("no {}", told.name)).collect();
        match all.iter_mut().find(|(known, _)| *known == lacks) {
            _ if lacks.is_empty() => {}
            Some((_, names)) => names.push(subject.name.clone()),
            None => all.push((lacks, vec![subject.name.clone()])),
        }
    }
    all.iter().map(|(lacks, names)| format!("{} told {}.", list(names), list(lacks))).collect()
}

/// A number of any size, by four digits that say something: "0.9722", "1235", "1.234e\u{2212}5".
pub fn value_text(value: f64) -> String {
    plain_text(value).replace('-', "\u{2212}")
}

/// A value as far as it is shown.
pub(super) fn as_shown(value: f64) -> f64 {
    plain_text(value).parse().unwrap_or(value)
}

fn plain_text(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".into(),
        1e-3..1e6 if value.fract() == 0.0 => format!("{value:.0}"),
        1e-3..1e6 => format!("{value:.*}", (3 - size.log10().floor() as i32).max(0) as usize),
        _ => format!("{value:.3e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::told::tests::sample;
    use crate::report::words::about;

    #[test]
    fn whose_is_the_best_and_who_told_none_is_said() {
        let mut numbers = sample();
        assert_eq!(
            headline(&numbers)[..2],
            [
                "accuracy: forest is best with 0.9722; mlp has 0.9510.",
                "train.loss: <wide> is best with 0.01867; mlp has 0.03533."
            ]
        );
        assert_eq!(headline(&numbers)[2], "forest told no train.loss.");
        assert_eq!(about(&numbers), "3 targets, 3 numbers.");
        numbers.told[2].rows[1].value = None;
        assert_eq!(headline(&numbers)[2], "forest told no train.loss and no log-likelihood.");
        numbers.told[2].rows[0].value = None;
        numbers.told[1].rows[0].value = None;
        assert_eq!(headline(&numbers).last().expect("one"), "mlp and forest told no train.loss and no log-likelihood.");
        numbers.told[0].rows[0].value = Some(0.98);
        assert_eq!(headline(&numbers)[0], "accuracy: mlp is best with 0.9800; forest has 0.9722.");
        numbers.told[0].rows.iter_mut().for_each(|row| row.value = Some(0.5));
        assert_eq!(headline(&numbers)[0], "accuracy: the same of all, 0.5000.");
        numbers.told[0].rows[2].value = Some(0.25);
        assert_eq!(headline(&numbers)[0], "accuracy: mlp and forest are best with 0.5000; <wide> has 0.2500.");
    }

    #[test]
    fn values_have_digits_that_say_something() {
        let shown = [0.97222, 0.5, 1234.56, 12.3456, 1797.0, 0.0, -0.02345, 1.2345e-5, 2.5e9, 1e-3].map(value_text);
        let expected = [
            "0.9722",
            "0.5000",
            "1235",
            "12.35",
            "1797",
            "0",
            "\u{2212}0.02345",
            "1.234e\u{2212}5",
            "2.500e9",
            "0.001000",
        ];
        assert_eq!(shown, expected);
    }
}
