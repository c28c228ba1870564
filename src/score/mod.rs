//! How good predictions are: numbers as the libraries people trust define them. Definitions: `docs/metrics.md`.
//!
//! Each is held against its library on random and degenerate inputs (`tests/reference/score`): scikit-learn for classes and
//! probabilities, torchmetrics for calibration, trec_eval for rankings, sacrebleu for texts. What a library answers with a
//! warning, such as the ROC area of one class, is `None` here.

pub mod classes;
pub mod probabilities;
pub mod ranking;
pub mod text;

use classes::{Average, Confusion};
use probabilities::Sweep;
use ranking::Ranked;
use text::{Bleu, ChrF};

/// A number of predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The share of items whose class is right.
    Accuracy,
    /// The mean of the classes' recalls.
    BalancedAccuracy,
    /// The mean of the classes' precisions.
    Precision,
    /// The mean of the classes' recalls, of those too that are predicted alone.
    Recall,
    /// The mean of the classes' F1.
    F1,
    /// The mean of the classes' F1, each by its items.
    WeightedF1,
    /// Matthews' correlation.
    Matthews,
    /// The area under the ROC curve.
    RocAuc,
    /// The area under the curve of precision and recall, as a sum of steps.
    AveragePrecision,
    /// The mean surprise at the true class, in nats.
    LogLoss,
    /// The mean squared distance of probabilities to the truth.
    Brier,
    /// The expected calibration error.
    CalibrationError,
    /// The share of what is relevant among the first k.
    RecallAt(usize),
    /// The share of the first k that is relevant.
    PrecisionAt(usize),
    /// The mean of one over the rank of the first relevant answer.
    ReciprocalRank,
    /// The mean of the queries' average precisions.
    MeanAveragePrecision,
    /// Discounted gain of the first k by the best there could be.
    GainAt(usize),
    /// The share of texts that are as wanted.
    ExactMatch,
    /// BLEU of all texts together, from 0 to 100.
    Bleu,
    /// chrF of all texts together, from 0 to 100.
    ChrF,
}

/// What a metric is computed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The predicted class.
    Class,
    /// A probability of each class.
    Probabilities,
    /// Those, or a score of one class.
    Scores,
    /// Answers in order.
    Ranked,
    /// A text.
    Text,
}

const NAMED: &[(&str, Metric)] = &[
    ("accuracy", Metric::Accuracy),
    ("balanced-accuracy", Metric::BalancedAccuracy),
    ("precision", Metric::Precision),
    ("recall", Metric::Recall),
    ("f1", Metric::F1),
    ("weighted-f1", Metric::WeightedF1),
    ("matthews", Metric::Matthews),
    ("roc-auc", Metric::RocAuc),
    ("average-precision", Metric::AveragePrecision),
    ("log-loss", Metric::LogLoss),
    ("brier", Metric::Brier),
    ("calibration-error", Metric::CalibrationError),
    ("mrr", Metric::ReciprocalRank),
    ("map", Metric::MeanAveragePrecision),
    ("exact-match", Metric::ExactMatch),
    ("bleu", Metric::Bleu),
    ("chrf", Metric::ChrF),
];

type AtRank = fn(usize) -> Metric;

const AT_RANK: &[(&str, AtRank)] =
    &[("recall@", Metric::RecallAt), ("precision@", Metric::PrecisionAt), ("ndcg@", Metric::GainAt)];

impl Metric {
    /// By its name in recipes and reports: `f1`, `recall@10`.
    pub fn parse(name: &str) -> Option<Self> {
        let at_rank = || {
            let (of, k) = AT_RANK.iter().find_map(|(prefix, of)| Some((of, name.strip_prefix(prefix)?)))?;
            // "+5" and "05" are no other metrics than "5".
            let k = k.parse().ok().filter(|n: &usize| *n > 0 && n.to_string() == k)?;
            Some(of(k))
        };
        NAMED.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric).or_else(at_rank)
    }

    /// Its name.
    pub fn name(self) -> String {
        match self {
            Self::RecallAt(k) => format!("recall@{k}"),
            Self::PrecisionAt(k) => format!("precision@{k}"),
            Self::GainAt(k) => format!("ndcg@{k}"),
            _ => NAMED.iter().find(|(_, metric)| *metric == self).map_or_else(String::new, |(name, _)| (*name).into()),
        }
    }

    /// All names, with 10 for k.
    pub fn names() -> Vec<String> {
        let at_rank = AT_RANK.iter().map(|(name, _)| format!("{name}10"));
        NAMED.iter().map(|(name, _)| (*name).to_owned()).chain(at_rank).collect()
    }

    /// What it is computed of.
    pub fn needs(self) -> Needs {
        match self {
            Self::Accuracy
            | Self::BalancedAccuracy
            | Self::Precision
            | Self::Recall
            | Self::F1
            | Self::WeightedF1
            | Self::Matthews => Needs::Class,
            Self::RocAuc | Self::AveragePrecision => Needs::Scores,
            Self::LogLoss | Self::Brier | Self::CalibrationError => Needs::Probabilities,
            Self::RecallAt(_)
            | Self::PrecisionAt(_)
            | Self::ReciprocalRank
            | Self::MeanAveragePrecision
            | Self::GainAt(_) => Needs::Ranked,
            Self::ExactMatch | Self::Bleu | Self::ChrF => Needs::Text,
        }
    }

    /// Whether a lower value is the better one.
    pub fn is_error(self) -> bool {
        matches!(self, Self::LogLoss | Self::Brier | Self::CalibrationError)
    }

    /// Whether it is from 0 to 1, so that it may stand on one scale with others.
    pub fn is_share(self) -> bool {
        !matches!(self, Self::Matthews | Self::LogLoss | Self::Brier | Self::Bleu | Self::ChrF)
    }
}

/// What one program predicted of all items.
#[derive(Debug)]
pub enum Predictions {
    /// Classes.
    Classes(Classes),
    /// Answers in order, a query an item.
    Ranked(Vec<Ranked>),
    /// Texts.
    Texts(Vec<Text>),
}

/// Classes, by their numbers.
#[derive(Debug, Default)]
pub struct Classes {
    /// How many there are.
    pub classes: usize,
    /// Of each item the true one.
    pub truth: Vec<usize>,
    /// Of each item the predicted one; empty where it is not known.
    pub predicted: Vec<usize>,
    /// Item by item of each class; empty where they are not known.
    pub probabilities: Vec<f64>,
    /// By the score of the class that is looked for; of probabilities by each class's, which it is then held against the others
    /// by. None where there is neither.
    pub sweeps: Vec<Sweep>,
}

/// A written text, as far as metrics need it.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    exact: bool,
    bleu: Bleu,
    chrf: ChrF,
}

impl Text {
    /// Of a text and the one that was wanted.
    pub fn of(text: &str, wanted: &str) -> Self {
        Self { exact: text::is_exact(text, wanted), bleu: Bleu::of(text, wanted), chrf: ChrF::of(text, wanted) }
    }
}

impl Predictions {
    /// How many items.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes(of) => of.truth.len(),
            Self::Ranked(of) => of.len(),
            Self::Texts(of) => of.len(),
        }
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A metric of these items, some of which may be there twice. None where it has no value: of no items, of what it does not
    /// fit, of one class where it tells two apart.
    pub fn value(&self, metric: Metric, items: &[usize]) -> Option<f64> {
        if items.is_empty() {
            return None;
        }
        match self {
            Self::Classes(of) => of.value(metric, items),
            Self::Ranked(of) => {
                let one = |of: &Ranked| match metric {
                    Metric::RecallAt(k) => Some(of.recall(k)),
                    Metric::PrecisionAt(k) => Some(of.precision(k)),
                    Metric::ReciprocalRank => Some(of.reciprocal_rank()),
                    Metric::MeanAveragePrecision => Some(of.average_precision()),
                    Metric::GainAt(k) => Some(of.ndcg(k)),
                    _ => None,
                };
                let sum = items.iter().map(|item| one(&of[*item])).sum::<Option<f64>>()?;
                Some(sum / items.len() as f64)
            }
            Self::Texts(of) => {
                let of = || items.iter().map(|item| of[*item]);
                match metric {
                    Metric::ExactMatch => Some(of().filter(|text| text.exact).count() as f64 / items.len() as f64),
                    Metric::Bleu => Some(Bleu::together(of().map(|text| text.bleu))),
                    Metric::ChrF => Some(ChrF::together(of().map(|text| text.chrf))),
                    _ => None,
                }
            }
        }
    }
}

impl Classes {
    fn value(&self, metric: Metric, items: &[usize]) -> Option<f64> {
        let truth = || items.iter().map(|item| self.truth[*item]);
        match metric.needs() {
            Needs::Class => {
                let confusion = self.confusion(items)?;
                match metric {
                    Metric::Accuracy => confusion.accuracy(),
                    Metric::BalancedAccuracy => confusion.balanced_accuracy(),
                    Metric::Precision => Some(confusion.average(Average::Macro)?.precision),
                    Metric::Recall => Some(confusion.average(Average::Macro)?.recall),
                    Metric::F1 => Some(confusion.average(Average::Macro)?.f1),
                    Metric::WeightedF1 => Some(confusion.average(Average::Weighted)?.f1),
                    _ => confusion.matthews(),
                }
            }
            Needs::Probabilities if !self.probabilities.is_empty() => {
                let truth: Vec<usize> = truth().collect();
                let rows: Vec<f64> = items.iter().flat_map(|item| self.row(*item)).copied().collect();
                match metric {
                    Metric::LogLoss => probabilities::log_loss(&truth, &rows, self.classes),
                    Metric::Brier => probabilities::brier(&truth, &rows, self.classes),
                    _ => probabilities::calibration_error(&truth, &rows, self.classes),
                }
            }
            Needs::Scores if !self.sweeps.is_empty() => {
                let mut times = vec![0; self.truth.len()];
                items.iter().for_each(|item| times[*item] += 1);
                let of = |sweep: &Sweep| match metric {
                    Metric::RocAuc => sweep.roc_auc(&times),
                    _ => sweep.average_precision(&times),
                };
                Some(self.sweeps.iter().map(of).sum::<Option<f64>>()? / self.sweeps.len() as f64)
            }
            _ => None,
        }
    }

    /// Of an item.
    fn row(&self, item: usize) -> &[f64] {
        &self.probabilities[item * self.classes..(item + 1) * self.classes]
    }

    /// Counts of true and predicted classes; none where no class is predicted.
    pub fn confusion(&self, items: &[usize]) -> Option<Confusion> {
        let of = || Confusion::of(self.classes, items.iter().map(|item| (self.truth[*item], self.predicted[*item])));
        (!self.predicted.is_empty()).then(of)
    }

    /// The bins of its calibration, of all items; none where probabilities are not known.
    pub fn bins(&self) -> Option<Vec<probabilities::Bin>> {
        (!self.probabilities.is_empty())
            .then(|| probabilities::bins(&self.truth, &self.probabilities, self.classes))
            .flatten()
    }
}

/// A ratio; of nothing it is 0, as scikit-learn's `zero_division=0` has it.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole == 0.0 { 0.0 } else { part / whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_one_name() {
        for name in Metric::names() {
            assert_eq!(Metric::parse(&name).map(Metric::name), Some(name));
        }
        for name in ["recall@0", "recall@05", "recall@+5", "recall@", "Recall", "ndcg", ""] {
            assert_eq!(Metric::parse(name), None, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_and_what_is_of_nothing_has_no_value() {
        let texts = Predictions::Texts(vec![Text::of("a b c d", "a b c d")]);
        assert_eq!(texts.value(Metric::Bleu, &[0]), Some(100.0));
        assert_eq!(texts.value(Metric::Accuracy, &[0]), None);
        assert_eq!(texts.value(Metric::Bleu, &[]), None);
        let sweeps = vec![Sweep::new(vec![true, true], &[0.2, 0.9])];
        let one_class = Classes { classes: 2, truth: vec![1, 1], sweeps, ..Classes::default() };
        let one_class = Predictions::Classes(one_class);
        assert_eq!(one_class.value(Metric::RocAuc, &[0, 1]), None);
        assert_eq!(one_class.value(Metric::AveragePrecision, &[0, 1]), Some(1.0));
        assert_eq!(one_class.value(Metric::Accuracy, &[0, 1]), None, "no class is predicted");
        assert_eq!(one_class.value(Metric::LogLoss, &[0, 1]), None, "a score is no probability");
    }
}
