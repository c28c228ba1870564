//! What was found of predictions.

use crate::report::numbers::Numbers;
use crate::report::predictions::Scored;
use crate::report::words::{list, name, signed};

/// Of each metric, whose value is the best, and whether it differs from the first target's beyond noise.
pub fn headline(numbers: &Numbers) -> Vec<String> {
    let metrics = numbers.predicted.iter().flat_map(|predicted| &predicted.metrics);
    metrics.filter_map(|scored| best(numbers, scored)).collect()
}

fn best(numbers: &Numbers, scored: &Scored) -> Option<String> {
    let rows: Vec<_> = scored.rows.iter().filter_map(|row| Some((row, row.estimate?))).collect();
    let (_, top) = *rows.iter().reduce(|a, b| if scored.prefers(b.1.value, a.1.value) { b } else { a })?;
    let best: Vec<_> = rows.iter().filter(|(_, e)| text(scored, e.value) == text(scored, top.value)).collect();
    let (metric, value) = (&scored.metric, text(scored, top.value));
    if best.len() == rows.len() {
        let of_all = if rows.len() > 1 { "the same of all, " } else { "" };
        return Some(format!("{metric}: {of_all}{value}."));
    }
    let names: Vec<String> = best.iter().map(|(row, _)| name(numbers, &row.subject).to_owned()).collect();
    // Differences are from the first target: of the best, or where that is the first, of the next.
    let next = || {
        let others = rows.iter().filter(|(row, _)| row.difference.is_some());
        others.reduce(|a, b| if scored.prefers(b.1.value, a.1.value) { b } else { a })
    };
    let against = match best[..] {
        [(row, _)] if row.difference.is_some() => rows.first().map(|first| (first, row.difference)),
        [_] => next().map(|next| (next, next.0.difference)),
        _ => None,
    };
    let against = against.and_then(|((row, e), difference)| {
        let d = difference?;
        let beyond = if d.stands_out { "beyond noise" } else { "within noise" };
        let (other, value) = (name(numbers, &row.subject), text(scored, e.value));
        Some(format!("; {other} has {value}, a difference {beyond} ({} to {})", signed(d.low), signed(d.high)))
    });
    let are = if names.len() == 1 { "is" } else { "are" };
    Some(format!("{metric}: {} {are} best with {value}{}.", list(&names), against.unwrap_or_default()))
}

/// A value, by as many digits as its scale needs.
pub fn text(scored: &Scored, value: f64) -> String {
    if !scored.is_share && value.abs() >= 10.0 { format!("{value:.2}") } else { format!("{value:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::predictions::tests::sample;

    #[test]
    fn the_best_is_told_with_whether_it_is_beyond_noise() {
        let numbers = sample();
        let said = headline(&numbers);
        assert_eq!(
            said[..2],
            [
                "accuracy: <forest> is best with 0.950; knn has 0.750, a difference beyond noise (+0.133 to +0.275).",
                "log-loss: <forest> is best with 0.750; knn has 0.950, a difference within noise (0.000 to 0.000).",
            ]
        );
        assert_eq!(said[2], "roc-auc: 0.750.");
    }
}
