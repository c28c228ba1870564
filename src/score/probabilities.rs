//! Scores and probabilities beside what was true.

/// How many equally wide bins a calibration error has, as in Guo et al., "On Calibration of Modern Neural Networks", 2017.
pub const BINS: usize = 15;

/// Items by their score of one class, the highest first: sorted once, and swept over for each resample.
#[derive(Debug)]
pub struct Sweep {
    /// Items of one score stand together.
    groups: Vec<Vec<usize>>,
    positive: Vec<bool>,
}

impl Sweep {
    /// Of items that are of the class or not, and their scores, none of which is NaN.
    pub fn new(positive: Vec<bool>, scores: &[f64]) -> Self {
        assert_eq!(positive.len(), scores.len(), "a score for each item");
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let groups = order.chunk_by(|a, b| scores[*a] == scores[*b]).map(<[usize]>::to_vec).collect();
        Self { groups, positive }
    }

    /// How many of each group, and how many of them are of the class, where each item counts so many `times`.
    fn counts<'a>(&'a self, times: &'a [u32]) -> impl DoubleEndedIterator<Item = (f64, f64)> + 'a {
        self.groups.iter().map(|group| {
            group.iter().fold((0.0, 0.0), |(all, right), item| {
                let n = f64::from(times[*item]);
                (all + n, if self.positive[*item] { right + n } else { right })
            })
        })
    }

    /// The area under the ROC curve: how often an item of the class has a higher score than another, ties by half (Mann and
    /// Whitney, 1947). None where all are of one sort.
    pub fn roc_auc(&self, times: &[u32]) -> Option<f64> {
        let (mut positives, mut negatives, mut wins) = (0.0, 0.0, 0.0);
        for (all, right) in self.counts(times).rev() {
            wins += right * (negatives + (all - right) / 2.0);
            positives += right;
            negatives += all - right;
        }
        (positives > 0.0 && negatives > 0.0).then(|| wins / (positives * negatives))
    }

    /// Average precision: the mean, over the items of the class, of the precision among all that score as high or higher. None
    /// without such an item.
    pub fn average_precision(&self, times: &[u32]) -> Option<f64> {
        let (mut seen, mut found, mut sum) = (0.0, 0.0, 0.0);
        for (all, right) in self.counts(times) {
            seen += all;
            found += right;
            // A group that no resampled item is of has neither.
            sum += super::ratio(right * found, seen);
        }
        (found > 0.0).then(|| sum / found)
    }
}

/// The mean of minus the logarithm of what was given to the true class, probabilities kept away from 0 and 1 by the least step of
/// f64 at 1, in nats. `probabilities` has a row of `classes` for each item, which sums to 1.
pub fn log_loss(truth: &[usize], probabilities: &[f64], classes: usize) -> Option<f64> {
    let rows = rows(truth, probabilities, classes)?;
    let given = |(truth, row): (&usize, &[f64])| row[*truth].clamp(f64::EPSILON, 1.0 - f64::EPSILON);
    Some(truth.iter().zip(rows).map(given).map(|p| -p.ln()).sum::<f64>() / truth.len() as f64)
}

/// The mean squared distance of the probabilities to the truth, over all classes (Brier, 1950): from 0 to 2.
pub fn brier(truth: &[usize], probabilities: &[f64], classes: usize) -> Option<f64> {
    let rows = rows(truth, probabilities, classes)?;
    let apart = |(truth, row): (&usize, &[f64])| -> f64 {
        row.iter().enumerate().map(|(class, p)| (p - f64::from(u8::from(class == *truth))).powi(2)).sum()
    };
    Some(truth.iter().zip(rows).map(apart).sum::<f64>() / truth.len() as f64)
}

/// Items of about the same highest probability.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub items: f64,
    /// Their highest probabilities, in sum.
    pub held: f64,
    /// How many of them that probability was right of.
    pub right: f64,
}

/// Items by their highest probability, in [`BINS`] bins of equal width.
pub fn bins(truth: &[usize], probabilities: &[f64], classes: usize) -> Option<Vec<Bin>> {
    let rows = rows(truth, probabilities, classes)?;
    let mut bins = vec![Bin::default(); BINS];
    for (truth, row) in truth.iter().zip(rows) {
        // The first of equal ones, as numpy's argmax has it.
        let top = (1..classes).fold(0, |top, class| if row[class] > row[top] { class } else { top });
        // Each bin has its upper edge: 1 is in the last, 0 in the first.
        let bin = &mut bins[((row[top] * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
        bin.items += 1.0;
        bin.held += row[top];
        bin.right += f64::from(u8::from(top == *truth));
    }
    Some(bins)
}

/// Expected calibration error: how far the highest probability is from the share of items it is right of, bin by bin, each by
/// how many items it has (Guo et al., 2017).
pub fn calibration_error(truth: &[usize], probabilities: &[f64], classes: usize) -> Option<f64> {
    let bins = bins(truth, probabilities, classes)?;
    Some(bins.iter().map(|bin| (bin.held - bin.right).abs()).sum::<f64>() / truth.len() as f64)
}

fn rows<'a>(truth: &[usize], probabilities: &'a [f64], classes: usize) -> Option<std::slice::ChunksExact<'a, f64>> {
    assert_eq!(probabilities.len(), truth.len() * classes, "a row for each item");
    let usable = !truth.is_empty() && !probabilities.iter().any(|p| p.is_nan());
    usable.then(|| probabilities.chunks_exact(classes))
}
