//! The numbers that subjects are ordered and drawn by, whatever sort of report they are in.

use crate::measure::estimate::Estimate;
use crate::report::numbers::{Numbers, PERPLEXITY};
use crate::report::told::Better;

/// A number that each subject has, or lacks.
#[derive(Debug)]
pub struct Measure {
    /// Its name, with what it is of: "perplexity on data/definitions, test".
    pub name: String,
    /// Which value is the better; none where nobody said.
    pub better: Option<Better>,
    /// Its noise is known.
    pub has_interval: bool,
    /// One a subject.
    pub values: Vec<Option<Estimate>>,
}

impl Measure {
    fn new(name: String, better: Better, values: impl Iterator<Item = Option<Estimate>>) -> Self {
        Self { name, better: Some(better), has_interval: true, values: values.collect() }
    }

    /// How good a subject is by it: higher is always better; none where it has no value or nobody said what is better.
    pub fn worth(&self, subject: usize) -> Option<f64> {
        let value = self.values[subject]?.value;
        Some(if self.better? == Better::Lower { -value } else { value })
    }
}

/// What a report has of each subject, in its order.
pub fn all(numbers: &Numbers) -> Vec<Measure> {
    let mut all = Vec::new();
    for test in &numbers.tests {
        let values = test.rows.iter().map(|row| Some(row.t2i["recall@10"]));
        all.push(Measure::new(format!("R@10 of \u{201c}{}\u{201d}", test.name), Better::Higher, values));
    }
    for texts in &numbers.texts {
        let mut add = |what: &str, better, values: Vec<Option<Estimate>>| {
            if values.iter().any(Option::is_some) {
                all.push(Measure::new(format!("{what} on {}, {}", texts.on, texts.split), better, values.into_iter()));
            }
        };
        add("divergence", Better::Lower, texts.rows.iter().map(|row| row.divergence).collect());
        if numbers.has(PERPLEXITY) {
            add(PERPLEXITY, Better::Lower, texts.rows.iter().map(|row| Some(row.perplexity)).collect());
        }
        add("accuracy", Better::Higher, texts.rows.iter().map(|row| row.accuracy).collect());
    }
    for encoded in &numbers.encoded {
        let values = encoded.rows.iter().map(|row| Some(row.distance));
        all.push(Measure::new(format!("distance on {}, {}", encoded.on, encoded.split), Better::Lower, values));
    }
    for scored in numbers.predicted.iter().flat_map(|predicted| &predicted.metrics) {
        let better = if scored.is_error { Better::Lower } else { Better::Higher };
        all.push(Measure::new(scored.metric.clone(), better, scored.rows.iter().map(|row| row.estimate)));
    }
    for told in &numbers.told {
        let values = told.rows.iter().map(|row| row.value.map(Estimate::alone));
        all.push(Measure {
            name: told.name.clone(),
            better: told.better,
            has_interval: false,
            values: values.collect(),
        });
    }
    all
}

/// The one by which the best are the best: the first of which it is known what is better.
pub fn main(numbers: &Numbers) -> Option<Measure> {
    all(numbers).into_iter().find(|measure| measure.better.is_some())
}
