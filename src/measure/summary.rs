//! What samples say: percentiles, the interval of a median, how two subjects compare.

use serde::{Deserialize, Serialize};

use super::Series;
use crate::measure::estimate::{Estimate, bootstrap, bootstrap_of};

/// Rounds from which a percentile is told: below, it would be little else than the slowest round.
const ROUNDS_OF_P95: usize = 20;
const ROUNDS_OF_P99: usize = 100;

/// Wall times, CPU time and memory of a subject's rounds. Times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub rounds: usize,
    /// The median, with its interval.
    pub p50_s: Estimate,
    /// What nine of ten rounds stayed under.
    pub p90_s: f64,
    /// Likewise; none of fewer than 20 rounds.
    pub p95_s: Option<f64>,
    /// Likewise; none of fewer than 100 rounds.
    pub p99_s: Option<f64>,
    /// The quickest.
    pub min_s: f64,
    /// The mean.
    pub mean_s: f64,
    /// The slowest.
    pub max_s: f64,
    /// The median CPU time, with its interval.
    pub cpu_s: Estimate,
    /// The most memory that a round held, in bytes.
    pub peak_bytes: u64,
}

/// How one subject's time is to another's: above 1 is slower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// The one divided by the other.
    pub value: f64,
    /// 2.5th percentile of the bootstrap.
    pub low: f64,
    /// 97.5th.
    pub high: f64,
    /// Whether the interval excludes 1, and the machine was quiet enough to say so.
    pub stands_out: bool,
}

impl Summary {
    /// Of the rounds of one subject, at least one.
    pub fn of(series: &Series, seed: u64) -> Self {
        let times = sorted(&series.wall_s);
        let at = |share| quantile(&times, share);
        let from = |rounds, share| (times.len() >= rounds).then(|| at(share));
        Self {
            rounds: times.len(),
            p50_s: median(&series.wall_s, seed),
            p90_s: at(0.9),
            p95_s: from(ROUNDS_OF_P95, 0.95),
            p99_s: from(ROUNDS_OF_P99, 0.99),
            min_s: at(0.0),
            mean_s: times.iter().sum::<f64>() / times.len() as f64,
            max_s: at(1.0),
            cpu_s: median(&series.cpu_s, seed),
            peak_bytes: series.peak_bytes.iter().copied().max().unwrap_or(0),
        }
    }
}

impl Ratio {
    /// From what the bootstrap gave; on a busy machine nothing stands out.
    pub fn of(Estimate { value, low, high }: Estimate, is_quiet: bool) -> Self {
        Self { value, low, high, stands_out: is_quiet && (low > 1.0 || high < 1.0) }
    }
}

/// In order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value that this share of them stays under, between two of them in proportion: Hyndman and Fan's seventh, 1996, which
/// numpy and R take, too.
///
/// # Panics
/// If there are none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The median of some values, in any order.
pub fn median_of(values: &[f64]) -> f64 {
    middle(&mut values.to_vec())
}

/// The median of values that may be moved about.
fn middle(values: &mut [f64]) -> f64 {
    let (half, is_even) = (values.len() / 2, values.len().is_multiple_of(2));
    let (before, &mut above, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    match before.iter().copied().reduce(f64::max) {
        Some(below) if is_even => f64::midpoint(below, above),
        _ => above,
    }
}

/// The median with its interval.
pub fn median(values: &[f64], seed: u64) -> Estimate {
    bootstrap(values, seed, &|values| middle(values))
}

/// The median of one subject's time by the other's, round by round: what a round had of the machine counts for both and
/// cancels.
///
/// # Panics
/// If they are not of the same rounds.
pub fn paired(values: &[f64], reference: &[f64], seed: u64) -> Estimate {
    assert_eq!(values.len(), reference.len(), "the same rounds");
    let ratios: Vec<f64> = values.iter().zip(reference).map(|(a, b)| a / b).collect();
    median(&ratios, seed)
}

/// The ratio of two medians that were measured apart, each by the pace that the machine had then; rounds and probes are
/// drawn for each by themselves. As (times, probe's times), the later ones first.
pub fn apart(now: (&[f64], &[f64]), then: (&[f64], &[f64]), seed: u64) -> Estimate {
    bootstrap_of(&[now.0, now.1, then.0, then.1], seed, &|drawn| {
        let [now, pace, then, pace_then] = drawn else { unreachable!("four went in") };
        (middle(now) / middle(then)) / (middle(pace) / middle(pace_then))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rng::Rng;

    #[test]
    fn percentiles_are_numpys() {
        let values = sorted(&[15.0, 20.0, 35.0, 40.0, 50.0]);
        let found = [0.0, 0.05, 0.3, 0.4, 0.5, 0.95, 1.0].map(|share| quantile(&values, share));
        // numpy.percentile([15, 20, 35, 40, 50], [0, 5, 30, 40, 50, 95, 100])
        let expected = [15.0, 16.0, 23.0, 29.0, 35.0, 48.0, 50.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        assert_eq!(
            [quantile(&[3.0], 0.5), median_of(&[4.0, 1.0, 3.0, 2.0]), median_of(&[5.0, 1.0, 3.0])],
            [3.0, 2.5, 3.0]
        );
    }

    #[test]
    fn a_percentile_needs_rounds_that_say_something() {
        let of = |n: usize| {
            let wall_s: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let summary =
                Summary::of(&Series { cpu_s: wall_s.clone(), peak_bytes: vec![3; n], wall_s, ..Series::default() }, 1);
            (summary.p95_s.is_some(), summary.p99_s.is_some())
        };
        assert_eq!([of(10), of(20), of(100)], [(false, false), (true, false), (true, true)]);
    }

    /// Times around a second: spread by so much to either side, now and then held up.
    fn times(rng: &mut Rng, rounds: usize, factor: f64, spread: f64) -> Vec<f64> {
        let time = |rng: &mut Rng| {
            let held_up = if rng.below(15) == 0 { f64::from(rng.between(0.05, 0.5)) } else { 0.0 };
            factor * (1.0 + spread * f64::from(rng.normal()) + held_up)
        };
        (0..rounds).map(|_| time(rng)).collect()
    }

    #[test]
    fn the_interval_of_a_median_holds_it_as_often_as_it_says() {
        let mut rng = Rng::new(5, "coverage");
        let holds = |rng: &mut Rng| {
            // The median of what is drawn: every fifteenth is held up.
            let e = median(&times(rng, 40, 1.0, 0.03), 1);
            let truth = 1.0 + 0.03 * 0.0896;
            e.low <= truth && truth <= e.high
        };
        let held = (0..200).filter(|_| holds(&mut rng)).count();
        assert!((180..=199).contains(&held), "{held} of 200");
    }

    #[test]
    fn two_that_are_the_same_seldom_stand_out_and_five_per_cent_do() {
        let mut rng = Rng::new(6, "pairs");
        let mut stands_out = |factor| {
            let (a, b) = (times(&mut rng, 40, factor, 0.03), times(&mut rng, 40, 1.0, 0.03));
            Ratio::of(paired(&a, &b, 1), true).stands_out
        };
        let same = (0..200).filter(|_| stands_out(1.0)).count();
        let slower = (0..50).filter(|_| stands_out(1.05)).count();
        assert!(same <= 18, "{same} of 200 pairs that are the same");
        assert!(slower >= 47, "{slower} of 50");
    }

    #[test]
    fn drift_within_rounds_cancels_in_pairs() {
        // Both get slower by half while they are measured.
        let mut rng = Rng::new(7, "drift");
        let drift = |i: usize| 1.0 + 0.5 * i as f64 / 40.0;
        let mut of = |factor: f64| -> Vec<f64> {
            (0..40).map(|i| factor * drift(i) * (1.0 + 0.01 * f64::from(rng.normal()))).collect()
        };
        let (a, b) = (of(1.05), of(1.0));
        let ratio = Ratio::of(paired(&a, &b, 1), true);
        assert!(ratio.stands_out && (ratio.value - 1.05).abs() < 0.01, "{ratio:?}");
        assert!(!Ratio::of(paired(&a, &b, 1), false).stands_out, "not where the machine was busy");
        assert!(median(&a, 1).low < median(&b, 1).high, "their own intervals overlap");
    }

    #[test]
    fn a_machine_that_is_slower_now_does_not_make_a_program_so() {
        let mut rng = Rng::new(8, "pace");
        let (then, now) = (times(&mut rng, 40, 1.0, 0.01), times(&mut rng, 40, 1.06, 0.01));
        let pace = |factor| vec![1e-3 * factor; 41];
        let e = apart((&now, &pace(1.06)), (&then, &pace(1.0)), 1);
        assert!(e.low < 1.0 && 1.0 < e.high && (e.value - 1.0).abs() < 0.01, "{e:?}");
        let e = apart((&now, &pace(1.0)), (&then, &pace(1.0)), 1);
        assert!(e.low > 1.04 && e.high < 1.08, "{e:?}");
    }
}
