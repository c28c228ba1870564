//! Which rounds count on a machine whose pace comes and goes.
//!
//! Two virtual machines on one processor share its cores' units: while the neighbour computes, everything here takes up to 1.7
//! times as long, for seconds, and no counter of the system says so. The probe does. Where it varied too much for numbers to be
//! compared, the rounds between two quick probes are those that nobody disturbed. They are chosen by the probe and never by what
//! a round itself took.

use super::noise::SPREAD_MAX;
use super::probe::spread;
use super::summary::{quantile, sorted};

/// A probe is quick when it takes no longer than this, by the quickest tenth of all.
const SLOWER_MAX: f64 = 1.1;
/// Between two probes there may be so many seconds: what a longer round had besides, they do not tell.
const APART_MAX_S: f64 = 0.2;
/// Of all rounds at least this share is to be quiet: of fewer, two probes may be quick by chance.
const SHARE_MIN: f64 = 0.2;

/// What the probes say of the rounds.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// All count: the machine was quiet.
    All,
    /// These count, and the others are set aside.
    Some(Vec<bool>),
    /// All count, on a machine that was not quiet. With more rounds there may be enough that are.
    NotYet,
    /// Likewise, and more rounds change nothing: they are too long.
    Never,
}

/// By the probes and, of each round, how many of them came before it. `apart_s`: the longest time between two probes, in seconds.
/// At least so many rounds are to be left.
pub(super) fn rounds(probe_s: &[f64], before: &[usize], apart_s: f64, min: usize) -> Found {
    if spread(probe_s) <= SPREAD_MAX {
        return Found::All;
    }
    if apart_s > APART_MAX_S {
        return Found::Never;
    }
    let limit = SLOWER_MAX * quantile(&sorted(probe_s), 0.1);
    // Of the last rounds the probe that comes after is still to come.
    let is_quick = |probe: usize| probe_s.get(probe).is_none_or(|seconds| *seconds <= limit);
    let counts: Vec<bool> = before.iter().map(|&n| is_quick(n - 1) && is_quick(n)).collect();
    let quiet = counts.iter().filter(|counts| **counts).count();
    match quiet >= min && quiet as f64 >= SHARE_MIN * counts.len() as f64 {
        true => Found::Some(counts),
        false => Found::NotYet,
    }
}

/// The probes beside rounds that count.
pub(super) fn probes(probe_s: &[f64], before: &[usize], counts: &[bool]) -> Vec<f64> {
    let mut beside = vec![false; probe_s.len()];
    for (&n, _) in before.iter().zip(counts).filter(|(_, counts)| **counts) {
        beside[n - 1] = true;
        beside[n] = true;
    }
    probe_s.iter().zip(beside).filter(|(_, beside)| *beside).map(|(seconds, _)| *seconds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe before each round and one after the last: slow ones where it is said.
    fn probes_of(rounds: usize, is_slow: impl Fn(usize) -> bool) -> (Vec<f64>, Vec<usize>) {
        let probe = |i| if is_slow(i) { 1.6e-3 } else { 1e-3 * (1.0 + 0.01 * (i % 3) as f64) };
        ((0..=rounds).map(probe).collect(), (1..=rounds).collect())
    }

    #[test]
    fn rounds_between_quick_probes_count() {
        let (probe_s, before) = probes_of(40, |i| i >= 20);
        let Found::Some(counts) = rounds(&probe_s, &before, 0.05, 10) else { panic!("not enough") };
        // The round before the first slow probe is none.
        assert_eq!(counts.iter().position(|counts| !counts), Some(19));
        assert!(counts[20..].iter().all(|counts| !counts));
        let beside = probes(&probe_s, &before, &counts);
        assert_eq!(beside, probe_s[..20]);
        assert!(spread(&beside) <= SPREAD_MAX);
    }

    #[test]
    fn what_cannot_be_told_apart_counts_as_it_is() {
        let (steady, before) = probes_of(40, |_| false);
        assert_eq!(rounds(&steady, &before, 9.0, 10), Found::All);
        let (mixed, before) = probes_of(40, |i| i >= 20);
        assert_eq!(rounds(&mixed, &before, APART_MAX_S + 0.1, 10), Found::Never);
        assert_eq!(rounds(&mixed, &before, 0.05, 20), Found::NotYet);
        // Every third is slow: what is between two quick ones may be so by chance, and is a third.
        let (seldom, before) = probes_of(90, |i| i % 9 != 0 && i % 9 != 1);
        assert_eq!(rounds(&seldom, &before, 0.05, 5), Found::NotYet);
    }
}
