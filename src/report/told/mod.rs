//! The numbers that targets' programs told while they ran, side by side: end values, and curves where there are any.
//!
//! They are of one run each, so nothing is known of the noise between runs, and nothing is said to stand out.

pub mod figures;
pub mod page;
pub mod tables;
pub mod words;

use serde::{Deserialize, Serialize};

/// One number, of each target.
#[derive(Debug, Serialize)]
pub struct Told {
    /// Its name, as it was told.
    pub name: String,
    /// Which value is the better; none where nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better: Option<Better>,
    /// One a target.
    pub rows: Vec<Row>,
}

/// Targets by two numbers, of which each is the better the lower.
#[derive(Debug, Serialize)]
pub struct Front {
    /// The number that goes across.
    pub across: String,
    /// The number that goes up.
    pub up: String,
    /// Targets that no other beats in both, by what goes across.
    pub unbeaten: Vec<String>,
}

impl Front {
    /// Of those targets that told both numbers.
    pub fn of(across: &Told, up: &Told) -> Self {
        let rows = across.rows.iter().zip(&up.rows);
        let mut both: Vec<(&str, f64, f64)> =
            rows.filter_map(|(x, y)| Some((x.subject.as_str(), x.value?, y.value?))).collect();
        both.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)));
        let mut least = f64::INFINITY;
        both.retain(|(_, _, y)| {
            let is_better = *y < least;
            least = least.min(*y);
            is_better
        });
        let unbeaten = both.into_iter().map(|(subject, ..)| subject.to_owned()).collect();
        Self { across: across.name.clone(), up: up.name.clone(), unbeaten }
    }
}

/// Which of two values is the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The higher.
    Higher,
    /// The lower.
    Lower,
}

/// What one target told of a number.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The target.
    pub subject: String,
    /// The last value; none where it told no such number.
    pub value: Option<f64>,
    /// (step, value), by step, where there are steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(u64, f64)>,
}

impl Better {
    /// Whether the one is better than the other.
    fn prefers(self, one: f64, other: f64) -> bool {
        match self {
            Better::Higher => one > other,
            Better::Lower => one < other,
        }
    }

    /// After the number's name.
    pub fn arrow(self) -> &'static str {
        match self {
            Better::Higher => " \u{2191}",
            Better::Lower => " \u{2193}",
        }
    }
}

impl Told {
    /// The best value there is, by what is shown of it; none where it was not said which is, or fewer than two have one.
    fn best(&self) -> Option<f64> {
        let better = self.better?;
        let shown: Vec<f64> = self.rows.iter().filter_map(|row| Some(words::as_shown(row.value?))).collect();
        let best = |a, b| if better.prefers(b, a) { b } else { a };
        shown.iter().copied().reduce(best).filter(|_| shown.len() > 1)
    }

    /// Whether a curve can be drawn.
    fn has_curve(&self) -> bool {
        self.rows.iter().any(|row| row.curve.len() > 1)
    }
}

impl Row {
    /// The point of its curve that was better than its end; none where the end is the best.
    fn best_point(&self, better: Better) -> Option<(u64, f64)> {
        let best = |a: (u64, f64), b: (u64, f64)| if better.prefers(b.1, a.1) { b } else { a };
        let point = self.curve.iter().copied().reduce(best)?;
        self.value.is_some_and(|end| better.prefers(point.1, end)).then_some(point)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::report::numbers::{Numbers, Of, Subject, VERSION_OF_TOLD, short_names};

    /// Three targets and three numbers, one of which a target lacks.
    pub(crate) fn sample() -> Numbers {
        let labels = ["models/mlp", "models/forest", "models/<wide>"].map(str::to_owned);
        let told = |name: &str, better, values: [Option<f64>; 3], curves: [Vec<(u64, f64)>; 3]| Told {
            name: name.into(),
            better,
            rows: labels
                .iter()
                .zip(values.into_iter().zip(curves))
                .map(|(label, (value, curve))| Row { subject: label.clone(), value, curve })
                .collect(),
        };
        let curve =
            |by: f64| (0..60).map(|i| (i, by / (i + 1) as f64 + 0.001 * (i * i % 7) as f64)).collect::<Vec<_>>();
        let ends = |curve: &[(u64, f64)]| curve.last().map(|p| p.1);
        let (slow, quick) = (curve(2.0), curve(1.0));
        let numbers = vec![
            told("accuracy", Some(Better::Higher), [Some(0.951), Some(0.9722), Some(0.9639)], Default::default()),
            told(
                "train.loss",
                Some(Better::Lower),
                [ends(&slow), None, ends(&quick)],
                [slow.clone(), Vec::new(), quick.clone()],
            ),
            told("log-likelihood", None, [Some(-1234.5), Some(-2.0), Some(0.0)], Default::default()),
        ];
        Numbers {
            version: VERSION_OF_TOLD,
            of: Of::Told,
            label: "reports/digits".into(),
            subjects: short_names(&labels)
                .into_iter()
                .zip(&labels)
                .map(|(name, label)| Subject { label: label.clone(), name, ..Subject::default() })
                .collect(),
            told: numbers,
            ..Numbers::default()
        }
    }

    #[test]
    fn the_best_is_by_what_is_shown_and_needs_two() {
        let best = |better, values: [Option<f64>; 3]| {
            let rows = values.map(|value| Row { subject: String::new(), value, curve: Vec::new() });
            Told { name: "n".into(), better, rows: rows.into() }.best()
        };
        assert_eq!(best(Some(Better::Higher), [Some(0.1), None, Some(0.3)]), Some(0.3));
        assert_eq!(best(Some(Better::Lower), [Some(0.1), None, Some(0.3)]), Some(0.1));
        assert_eq!(best(Some(Better::Higher), [Some(0.1), None, None]), None);
        assert_eq!(best(None, [Some(0.1), None, Some(0.3)]), None);
        assert_eq!(best(Some(Better::Higher), [Some(0.300_01), Some(0.300_02), None]), Some(0.3));
    }

    #[test]
    fn a_front_has_what_no_other_beats_in_both() {
        let told = |values: [Option<f64>; 5]| {
            let rows = values.into_iter().enumerate();
            let rows = rows.map(|(i, value)| Row { subject: format!("t{i}"), value, curve: Vec::new() });
            Told { name: "n".into(), better: Some(Better::Lower), rows: rows.collect() }
        };
        let front = |x, y| Front::of(&told(x), &told(y)).unbeaten;
        // The second costs as much as the fourth and is further off; the last did not tell.
        let x = [Some(4.0), Some(2.0), Some(1.0), Some(2.0), Some(0.5)];
        let y = [Some(0.0), Some(0.3), Some(0.9), Some(0.2), None];
        assert_eq!(front(x, y), ["t2", "t3", "t0"]);
        // Of equals one stands for all.
        assert_eq!(front([Some(1.0); 5], [Some(1.0); 5]), ["t0"]);
        assert_eq!(front([None; 5], y), [""; 0]);
    }

    #[test]
    fn a_better_point_before_the_end_is_found() {
        let row = |curve: Vec<(u64, f64)>| Row { subject: String::new(), value: curve.last().map(|p| p.1), curve };
        assert_eq!(row(vec![(0, 3.0), (1, 1.0), (2, 2.0)]).best_point(Better::Lower), Some((1, 1.0)));
        assert_eq!(row(vec![(0, 3.0), (1, 2.0)]).best_point(Better::Lower), None);
        assert_eq!(row(vec![]).best_point(Better::Lower), None);
    }
}
