//! Predicted classes beside the true ones.

use super::ratio;

/// Counts of each true class (row) that was predicted as each (column).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    /// How many classes there are.
    classes: usize,
    counts: Vec<u64>,
}

/// What is right of one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OfClass {
    /// Of those predicted to be of it, the share that is.
    pub precision: f64,
    /// Of those that are of it, the share that was predicted.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
    /// How many are of it.
    pub support: u64,
}

/// How the numbers of all classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// Each class counts alike.
    Macro,
    /// Each class by how many are of it.
    Weighted,
}

impl Confusion {
    /// Counts items: the true class and the predicted one, both below `classes`.
    pub fn of(classes: usize, items: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut counts = vec![0; classes * classes];
        for (truth, predicted) in items {
            counts[truth * classes + predicted] += 1;
        }
        Self { classes, counts }
    }

    /// How many of a true class were predicted as another.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        self.counts[truth * self.classes + predicted]
    }

    /// All items.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn right(&self) -> u64 {
        (0..self.classes).map(|class| self.count(class, class)).sum()
    }

    fn truths(&self, class: usize) -> u64 {
        (0..self.classes).map(|other| self.count(class, other)).sum()
    }

    fn predictions(&self, class: usize) -> u64 {
        (0..self.classes).map(|other| self.count(other, class)).sum()
    }

    /// The share that was predicted rightly; none of no items.
    pub fn accuracy(&self) -> Option<f64> {
        let total = self.total();
        (total > 0).then(|| self.right() as f64 / total as f64)
    }

    /// The mean recall of the classes that there are items of.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        let recalls: Vec<f64> = (0..self.classes)
            .filter(|class| self.truths(*class) > 0)
            .map(|class| self.count(class, class) as f64 / self.truths(class) as f64)
            .collect();
        (!recalls.is_empty()).then(|| recalls.iter().sum::<f64>() / recalls.len() as f64)
    }

    /// One class's own.
    pub fn of_class(&self, class: usize) -> OfClass {
        let (right, support) = (self.count(class, class) as f64, self.truths(class));
        let (precision, recall) = (ratio(right, self.predictions(class) as f64), ratio(right, support as f64));
        let f1 = ratio(2.0 * right, (support + self.predictions(class)) as f64);
        OfClass { precision, recall, f1, support }
    }

    /// Precision, recall and F1 of all classes that occur, as true or as predicted.
    pub fn average(&self, average: Average) -> Option<OfClass> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let classes = (0..self.classes).filter(|class| self.truths(*class) + self.predictions(*class) > 0);
        let all: Vec<OfClass> = classes.map(|class| self.of_class(class)).collect();
        let weight = |of: &OfClass| if average == Average::Macro { 1.0 } else { of.support as f64 };
        let whole: f64 = all.iter().map(weight).sum();
        let mean = |value: &dyn Fn(&OfClass) -> f64| all.iter().map(|of| weight(of) * value(of)).sum::<f64>() / whole;
        Some(OfClass {
            precision: mean(&|of| of.precision),
            recall: mean(&|of| of.recall),
            f1: mean(&|of| of.f1),
            support: total,
        })
    }

    /// Matthews' correlation of true and predicted classes, for any number of them (Gorodkin, 2004); 0 where all are of one class
    /// or predicted to be.
    pub fn matthews(&self) -> Option<f64> {
        let total = self.total() as f64;
        if total == 0.0 {
            return None;
        }
        let (mut together, mut truths, mut predictions) = (0.0, 0.0, 0.0);
        for class in 0..self.classes {
            let (truth, predicted) = (self.truths(class) as f64, self.predictions(class) as f64);
            together += truth * predicted;
            truths += truth * truth;
            predictions += predicted * predicted;
        }
        let covariance = self.right() as f64 * total - together;
        let apart = (total * total - truths) * (total * total - predictions);
        Some(ratio(covariance, apart.sqrt()))
    }
}
