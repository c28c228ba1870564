//! Numbers with bootstrap intervals. Definitions: `docs/metrics.md`.

use crate::backend::rng::Rng;

/// Resamples for an interval.
pub const RESAMPLES: usize = 1000;

/// A number with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// 2.5th percentile of the bootstrap.
    pub low: f64,
    /// 97.5th.
    pub high: f64,
}

impl Estimate {
    /// Of which nothing is uncertain, or nothing is known of how much.
    pub fn exactly(value: f64) -> Self {
        Self { value, low: value, high: value }
    }
}

/// How far a model is from another one on the same queries, with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The one minus the other.
    pub value: f64,
    /// 2.5th percentile of the paired bootstrap.
    pub low: f64,
    /// 97.5th.
    pub high: f64,
    /// Whether the interval excludes 0.
    pub stands_out: bool,
}

impl Estimate {
    /// A number with the percentiles of its resamples. One that gives no number is left out: it may lack every item of some class.
    pub fn of(value: f64, mut resamples: Vec<f64>) -> Self {
        resamples.retain(|value| !value.is_nan());
        if resamples.is_empty() {
            return Self::alone(value);
        }
        resamples.sort_by(f64::total_cmp);
        let at = |thousandths: usize| resamples.len() * thousandths / 1000;
        Self { value, low: resamples[at(25)], high: resamples[at(975).max(1) - 1] }
    }

    /// A number whose interval is not known.
    pub fn alone(value: f64) -> Self {
        Self { value, low: f64::NAN, high: f64::NAN }
    }

    /// e to it, interval and all: a percentile of what grows with the other is the other's.
    #[must_use]
    pub fn exp(self) -> Self {
        Self { value: self.value.exp(), low: self.low.exp(), high: self.high.exp() }
    }
}

impl Difference {
    /// From the mean of paired differences.
    pub fn of(mean: Estimate) -> Self {
        let Estimate { value, low, high } = mean;
        Self { value, low, high, stands_out: low > 0.0 || high < 0.0 }
    }

    /// 1 where it is above 0 beyond noise, -1 where it is below, else 0.
    pub fn sign(&self) -> i8 {
        match self.stands_out {
            true if self.value > 0.0 => 1,
            true => -1,
            false => 0,
        }
    }
}

/// The mean difference of two models, query by query: how hard a query is counts for both and cancels, so the
/// interval is narrower than the two models' own intervals suggest.
pub fn paired(values: &[f64], reference: &[f64], seed: u64) -> Difference {
    assert_eq!(values.len(), reference.len(), "the same queries");
    let apart: Vec<f64> = values.iter().zip(reference).map(|(a, b)| a - b).collect();
    Difference::of(mean(&apart, seed))
}

/// The mean with its interval.
pub fn mean(values: &[f64], seed: u64) -> Estimate {
    bootstrap(values, seed, &|v| v.iter().sum::<f64>() / v.len().max(1) as f64)
}

/// Percentile bootstrap over the queries, records or rounds. Efron, 1979.
pub fn bootstrap<T: Copy>(values: &[T], seed: u64, statistic: &dyn Fn(&mut Vec<T>) -> f64) -> Estimate {
    bootstrap_of(&[values], seed, &|drawn| statistic(&mut drawn[0]))
}

/// [`bootstrap`] of several samples that have nothing to do with one another: each is drawn from by itself.
pub fn bootstrap_of<T: Copy>(samples: &[&[T]], seed: u64, statistic: &dyn Fn(&mut [Vec<T>]) -> f64) -> Estimate {
    let value = statistic(&mut samples.iter().map(|values| values.to_vec()).collect::<Vec<_>>());
    let mut rng = Rng::new(seed, "bootstrap");
    let mut draw = |values: &[T]| (0..values.len()).map(|_| values[rng.below(values.len())]).collect::<Vec<T>>();
    let mut one = || statistic(&mut samples.iter().map(|values| draw(values)).collect::<Vec<_>>());
    Estimate::of(value, (0..RESAMPLES).map(|_| one()).collect())
}

/// A statistic of each resample of so many items, which are given by their places. The same seed draws the same ones, so what
/// several models give for one resample is of the same items.
pub fn resampled(items: usize, seed: u64, statistic: &dyn Fn(&[usize]) -> f64) -> Vec<f64> {
    let mut rng = Rng::new(seed, "bootstrap");
    let mut picks = vec![0; items];
    let mut one = || {
        picks.iter_mut().for_each(|pick| *pick = rng.below(items));
        statistic(&picks)
    };
    (0..RESAMPLES).map(|_| one()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_steady_gain_stands_out_only_when_paired() {
        // 200 queries, 100 of them right for the one, the same and 8 more for the other.
        let one: Vec<f64> = (0..200).map(|i| f64::from(u8::from(i % 2 == 0))).collect();
        let other: Vec<f64> = (0..200).map(|i| f64::from(u8::from(i % 2 == 0 || i % 25 == 1))).collect();
        let gain = paired(&other, &one, 7);
        assert!((gain.value - 0.02).abs() < 1e-9, "{gain:?}");
        assert!(gain.stands_out && gain.low > 0.0 && gain.high < 0.05 && gain.sign() == 1, "{gain:?}");
        let loss = paired(&one, &other, 7);
        assert!(loss.stands_out && loss.high < 0.0 && loss.sign() == -1, "{loss:?}");
        assert!(mean(&one, 7).high > mean(&other, 7).low, "their own intervals overlap");
    }

    #[test]
    fn no_difference_does_not_stand_out() {
        let one: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 3 == 0))).collect();
        assert_eq!(paired(&one, &one, 7), Difference { value: 0.0, low: 0.0, high: 0.0, stands_out: false });
        // As many queries won as lost.
        let other: Vec<f64> = (0..100).map(|i| f64::from(u8::from(i % 3 == 1 && i != 1 || i == 0))).collect();
        let swapped = paired(&other, &one, 7);
        assert!(!swapped.stands_out && swapped.low < 0.0 && swapped.high > 0.0 && swapped.sign() == 0, "{swapped:?}");
    }
}
