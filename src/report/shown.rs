//! Which subjects have a place of their own where there are more than a plot or a table's head can carry. All are in the
//! tables' rows and in the files.

use crate::report::measures;
use crate::report::numbers::Numbers;

/// Subjects that have a row of a plot, or a name in it.
pub const ROWS: usize = 24;

/// Subjects that have a panel, a curve, a column or a part of the page.
pub const PANELS: usize = 12;

/// The places of the subjects that are shown, in their order: all where no more than `most` pass, else of those the first
/// and then the best.
pub fn among(numbers: &Numbers, most: usize, passes: &dyn Fn(usize) -> bool) -> Vec<usize> {
    let mut shown: Vec<usize> = best_first(numbers).into_iter().filter(|i| passes(*i)).take(most).collect();
    shown.sort_unstable();
    shown
}

/// As [`among`], of all subjects.
pub fn shown(numbers: &Numbers, most: usize) -> Vec<usize> {
    among(numbers, most, &|_| true)
}

/// What a title says besides where some are left out: ": the first and the 23 best of 200 models".
pub fn out_of(numbers: &Numbers, most: usize) -> String {
    let n = numbers.subjects.len();
    if n <= most {
        return String::new();
    }
    let others = if by(numbers).is_some() { "best" } else { "next" };
    format!(": the first and the {} {others} of {n} {}s", most - 1, numbers.noun())
}

/// What the best are the best by, where something says so.
pub fn by(numbers: &Numbers) -> Option<String> {
    measures::main(numbers).map(|main| main.name)
}

/// The subjects' places, the first one's and then the best's; where nothing says which are better, as they are.
fn best_first(numbers: &Numbers) -> Vec<usize> {
    if numbers.quantization.is_some() {
        return numbers.order();
    }
    let main = measures::main(numbers);
    let worth = |subject: usize| main.as_ref()?.worth(subject);
    let mut order: Vec<usize> = (0..numbers.subjects.len()).collect();
    // Those without a value are last, and of equals the one before stays so.
    order.sort_by(|a, b| match (*a.min(b) == 0, worth(*a), worth(*b)) {
        (true, ..) => a.cmp(b),
        (_, Some(one), Some(other)) => other.total_cmp(&one),
        (_, one, other) => one.is_none().cmp(&other.is_none()),
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::told::{self, Better};
    use crate::report::{quantization, retrieval};

    #[test]
    fn the_first_and_the_best_are_shown_in_their_order() {
        // By accuracy: 0.951, 0.9722, 0.9639.
        let mut numbers = told::tests::sample();
        assert_eq!((shown(&numbers, 2), shown(&numbers, 3)), (vec![0, 1], vec![0, 1, 2]));
        numbers.told[0].better = Some(Better::Lower);
        assert_eq!(shown(&numbers, 2), [0, 2]);
        numbers.told[0].rows[2].value = None;
        assert_eq!(shown(&numbers, 2), [0, 1], "without a value is last");
        assert_eq!(among(&numbers, 1, &|i| i > 0), [1]);
        numbers.told.iter_mut().for_each(|told| told.better = None);
        assert_eq!(shown(&numbers, 2), [0, 1], "as they are");
        assert_eq!(out_of(&numbers, 2), ": the first and the 1 next of 3 targets");
    }

    #[test]
    fn what_is_left_out_is_said() {
        let numbers = retrieval::tests::sample();
        assert_eq!(out_of(&numbers, 3), "");
        assert_eq!(out_of(&numbers, 2), ": the first and the 1 best of 3 models");
        assert_eq!(by(&numbers).as_deref(), Some("R@10 of \u{201c}unseen\u{201d}"));
        let numbers = quantization::tests::sample();
        let mut nearest = numbers.order()[..3].to_vec();
        nearest.sort_unstable();
        assert_eq!(shown(&numbers, 3), nearest);
        assert_eq!(by(&numbers).as_deref(), Some("divergence on data/definitions, test"));
    }
}
