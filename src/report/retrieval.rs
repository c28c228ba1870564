//! Retrieval and zero-shot metrics with bootstrap intervals. Definitions: `docs/metrics.md`.

use crate::backend::rng::Rng;

/// Resamples for an interval.
const RESAMPLES: usize = 1000;

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
    let hits: Vec<f64> = ranks.iter().map(|r| f64::from(u8::from(*r <= k))).collect();
    mean(&hits, seed)
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

/// Percentile bootstrap over the queries. Efron, 1979.
fn bootstrap(values: &[f64], seed: u64, statistic: &dyn Fn(&mut Vec<f64>) -> f64) -> Estimate {
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
}
