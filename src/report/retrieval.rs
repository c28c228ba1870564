//! Retrieval and zero-shot metrics with bootstrap intervals. Definitions: `docs/metrics.md`.

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

impl Difference {
    /// 1 where it is above 0 beyond noise, -1 where it is below, else 0.
    pub fn sign(&self) -> i8 {
        match self.stands_out {
            true if self.value > 0.0 => 1,
            true => -1,
            false => 0,
        }
    }
}

/// The rank of the best right answer for each query, 1 the first. Ties count against the model.
///
/// `scores` [queries, gallery]; `right` says which gallery entries answer a query.
pub fn ranks(scores: &[f32], gallery: usize, right: &dyn Fn(usize, usize) -> bool) -> Vec<usize> {
    scores
        .chunks(gallery)
        .enumerate()
        .map(|(query, row)| {
            let best = (0..gallery).filter(|g| right(query, *g)).map(|g| row[g]).fold(f32::NEG_INFINITY, f32::max);
            1 + (0..gallery).filter(|g| !right(query, *g) && row[*g] >= best).count()
        })
        .collect()
}

/// The share of queries whose right answer is among the first k.
pub fn recall(ranks: &[usize], k: usize, seed: u64) -> Estimate {
    mean(&hits(ranks, k), seed)
}

/// 1 for each query whose right answer is among the first k, else 0.
pub fn hits(ranks: &[usize], k: usize) -> Vec<f64> {
    ranks.iter().map(|r| f64::from(u8::from(*r <= k))).collect()
}

/// The mean difference of two models, query by query: how hard a query is counts for both and cancels, so the
/// interval is narrower than the two models' own intervals suggest.
pub fn paired(values: &[f64], reference: &[f64], seed: u64) -> Difference {
    assert_eq!(values.len(), reference.len(), "the same queries");
    let apart: Vec<f64> = values.iter().zip(reference).map(|(a, b)| a - b).collect();
    let Estimate { value, low, high } = mean(&apart, seed);
    Difference { value, low, high, stands_out: low > 0.0 || high < 0.0 }
}

/// The median rank.
pub fn median_rank(ranks: &[usize], seed: u64) -> Estimate {
    let values: Vec<f64> = ranks.iter().map(|r| *r as f64).collect();
    bootstrap(&values, seed, &|v| {
        v.sort_by(f64::total_cmp);
        let n = v.len();
        if n % 2 == 1 { v[n / 2] } else { (v[n / 2 - 1] + v[n / 2]) / 2.0 }
    })
}

/// The mean with its interval.
pub fn mean(values: &[f64], seed: u64) -> Estimate {
    bootstrap(values, seed, &|v| v.iter().sum::<f64>() / v.len().max(1) as f64)
}

/// Percentile bootstrap over the queries or records. Efron, 1979.
pub fn bootstrap<T: Copy>(values: &[T], seed: u64, statistic: &dyn Fn(&mut Vec<T>) -> f64) -> Estimate {
    let value = statistic(&mut values.to_vec());
    let mut rng = Rng::new(seed, "bootstrap");
    let mut found: Vec<f64> = (0..RESAMPLES)
        .map(|_| statistic(&mut (0..values.len()).map(|_| values[rng.below(values.len())]).collect()))
        .collect();
    found.sort_by(f64::total_cmp);
    Estimate { value, low: found[RESAMPLES * 25 / 1000], high: found[RESAMPLES * 975 / 1000 - 1] }
}

/// All inner products: queries [n, d] with gallery [m, d] -> [n, m].
pub fn products(queries: &[&[f32]], gallery: &[&[f32]]) -> Vec<f32> {
    queries.iter().flat_map(|q| gallery.iter().map(|g| q.iter().zip(*g).map(|(a, b)| a * b).sum())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_ties_against_the_model() {
        let scores = [0.9, 0.1, 0.9, 0.2, 0.3, 0.1];
        assert_eq!(ranks(&scores, 3, &|q, g| q == g), [2, 1]);
        assert_eq!(ranks(&scores, 3, &|q, g| q == g || g == 2), [1, 1]);
    }

    #[test]
    fn an_interval_holds_its_value() {
        let ranks: Vec<usize> = (0..200).map(|i| if i % 4 == 0 { 1 } else { 9 }).collect();
        let r = recall(&ranks, 1, 7);
        assert!((r.value - 0.25).abs() < 1e-12 && r.low < 0.25 && r.high > 0.25 && r.high - r.low < 0.13, "{r:?}");
        assert_eq!(median_rank(&ranks, 7).value, 9.0);
    }

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
