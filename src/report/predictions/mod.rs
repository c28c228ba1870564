//! Predictions of programs beside what was true, item by item: any targets that keep them as a table.

pub mod figures;
pub mod page;
pub mod tables;
pub mod words;

use serde::Serialize;

use crate::measure::estimate::{Difference, Estimate};

/// What was predicted of the same items by each target.
#[derive(Debug, Serialize)]
pub struct Predicted {
    /// The file that each target keeps it in.
    pub file: String,
    /// How many items.
    pub items: usize,
    /// Their classes, in order; none of rankings and texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The numbers, in the order in which they were asked for.
    pub metrics: Vec<Scored>,
    /// Of classes, one a target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_class: Vec<ByClass>,
    /// Of probabilities, one a target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<Calibration>,
}

/// A metric, of each target.
#[derive(Debug, Serialize)]
pub struct Scored {
    /// Its name.
    pub metric: String,
    /// Whether a lower value is the better one.
    pub is_error: bool,
    /// Whether it is from 0 to 1.
    pub is_share: bool,
    /// One a target.
    pub rows: Vec<Row>,
}

/// A target's value.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The target.
    pub subject: String,
    /// With its interval over the items; none where it has no value, such as the ROC area of one class.
    pub estimate: Option<Estimate>,
    /// From the first target, on the same items.
    pub difference: Option<Difference>,
}

/// How a target fares with each class.
#[derive(Debug, Serialize)]
pub struct ByClass {
    /// The target.
    pub subject: String,
    /// Of each true class, how many were predicted to be of each.
    pub confusion: Vec<Vec<u64>>,
    /// Of each class.
    pub f1: Vec<f64>,
}

/// How sure a target is and how often it is right.
#[derive(Debug, Serialize)]
pub struct Calibration {
    /// The target.
    pub subject: String,
    /// Of each bin that has items: their mean highest probability, the share of them it is right of, how many they are.
    pub bins: Vec<(f64, f64, u64)>,
}

impl Scored {
    /// Each target's value; not a number where there is none.
    fn values(&self) -> Vec<f64> {
        self.rows.iter().map(|row| row.estimate.map_or(f64::NAN, |e| e.value)).collect()
    }

    /// Whether one value is better than another.
    fn prefers(&self, one: f64, other: f64) -> bool {
        if self.is_error { one < other } else { one > other }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::measure::estimate::{mean, paired};
    use crate::report::numbers::{Numbers, Of, Subject, VERSION_OF_PREDICTIONS, short_names};

    /// Two programs that sort 120 items into three classes, the second with no value of one metric.
    pub(crate) fn sample() -> Numbers {
        let labels = ["models/knn", "models/<forest>"].map(str::to_owned);
        let right = |n: usize| (0..120).map(|i| f64::from(u8::from(i % n != 0))).collect::<Vec<_>>();
        let of = [right(4), right(20)];
        let scored = |metric: &str, is_error, values: [Option<&Vec<f64>>; 2]| Scored {
            metric: metric.into(),
            is_error,
            is_share: !is_error,
            rows: labels
                .iter()
                .zip(values)
                .enumerate()
                .map(|(i, (label, values))| Row {
                    subject: label.clone(),
                    estimate: values.map(|v| mean(v, 7)),
                    difference: values.filter(|_| i > 0).map(|v| paired(v, &of[0], 7)),
                })
                .collect(),
        };
        let metrics = vec![
            scored("accuracy", false, [Some(&of[0]), Some(&of[1])]),
            scored("log-loss", true, [Some(&of[1]), Some(&of[0])]),
            scored("roc-auc", false, [Some(&of[0]), None]),
        ];
        let by_class = |label: &String, off: u64| ByClass {
            subject: label.clone(),
            confusion: vec![vec![40 - off, off, 0], vec![off, 40 - off, 0], vec![0, 2, 38]],
            f1: vec![0.8, 0.75, 0.97],
        };
        let calibration = |label: &String| Calibration {
            subject: label.clone(),
            bins: vec![(0.43, 0.4, 10), (0.7, 0.66, 50), (0.95, 0.9, 60)],
        };
        Numbers {
            version: VERSION_OF_PREDICTIONS,
            of: Of::Predictions,
            label: "reports/sorting".into(),
            subjects: short_names(&labels)
                .into_iter()
                .zip(&labels)
                .map(|(name, label)| Subject { label: label.clone(), name, ..Subject::default() })
                .collect(),
            predicted: Some(Predicted {
                file: "predictions.csv".into(),
                items: 120,
                classes: ["cat", "dog", "a <bird>"].map(str::to_owned).into(),
                metrics,
                by_class: vec![by_class(&labels[0], 10), by_class(&labels[1], 2)],
                calibration: labels.iter().map(calibration).collect(),
            }),
            left_out: vec!["roc-auc of <forest>: it has no value on these items.".into()],
            ..Numbers::default()
        }
    }
}
