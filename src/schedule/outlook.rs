//! How long the rest of a build will take, from how long its targets took the last time.
//!
//! Two bounds, and the larger counts: all remaining work shared by the jobs, and the longest chain of
//! targets that wait for one another. A target that never ran is taken as long as the mean of the others;
//! where most never ran, nothing is said.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::plan::Index;

/// How often it is told.
const EVERY: Duration = Duration::from_secs(1);

/// What is expected of a build.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    /// Each target's own time, where it is known.
    expected_ms: HashMap<Index, u64>,
    /// The longest chain that begins with each.
    chain_ms: HashMap<Index, u64>,
    /// For what never ran; none if too little is known.
    mean_ms: Option<u64>,
    told: Option<Instant>,
}

/// A target that is still to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pending {
    /// Which.
    pub(super) index: Index,
    /// For how long it has been running; zero before.
    pub(super) elapsed_ms: u64,
    /// How many jobs it takes up.
    pub(super) jobs: usize,
}

impl Outlook {
    /// Made of the targets that are to run, in topological order, the times of those that ran before, and
    /// who stands on whom.
    pub(super) fn new(
        to_run: &[Index],
        expected_ms: HashMap<Index, u64>,
        dependents: &HashMap<Index, Vec<Index>>,
    ) -> Self {
        let enough = !expected_ms.is_empty() && expected_ms.len() * 2 >= to_run.len();
        let mean_ms = enough.then(|| expected_ms.values().sum::<u64>() / expected_ms.len() as u64);
        let mut outlook = Self { expected_ms, chain_ms: HashMap::new(), mean_ms, told: None };
        for &index in to_run.iter().rev() {
            let above = dependents.get(&index).into_iter().flatten();
            let longest = above.filter_map(|other| outlook.chain_ms.get(other)).max().copied().unwrap_or(0);
            let chain_ms = outlook.expected(index).unwrap_or(0) + longest;
            outlook.chain_ms.insert(index, chain_ms);
        }
        outlook
    }

    /// Whether it is time to tell it again; from then on it is not, for a while.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.told.is_none_or(|told| told.elapsed() >= EVERY);
        if due {
            self.told = Some(Instant::now());
        }
        due
    }

    /// Time left for these with so many jobs.
    pub(super) fn left_ms(&self, pending: impl Iterator<Item = Pending>, jobs: usize) -> Option<u64> {
        let (mut work, mut chain) = (0, 0);
        for target in pending {
            let expected = self.expected(target.index)?;
            // One that takes longer than the last time is taken to be about to end.
            let done = target.elapsed_ms.min(expected);
            work += (expected - done) * target.jobs.clamp(1, jobs.max(1)) as u64;
            chain = chain.max(self.chain_ms.get(&target.index).copied().unwrap_or(expected).saturating_sub(done));
        }
        Some(chain.max(work / jobs.max(1) as u64))
    }

    fn expected(&self, index: Index) -> Option<u64> {
        self.expected_ms.get(&index).copied().or(self.mean_ms).filter(|_| self.mean_ms.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(index: Index, elapsed_ms: u64) -> Pending {
        Pending { index, elapsed_ms, jobs: 1 }
    }

    #[test]
    fn a_chain_takes_its_length_and_a_fan_its_share() {
        let times = HashMap::from([(0, 1000), (1, 2000), (2, 3000)]);
        let chain = HashMap::from([(0, vec![1]), (1, vec![2])]);
        let all = || (0..3).map(|i| pending(i, 0));
        assert_eq!(Outlook::new(&[0, 1, 2], times.clone(), &chain).left_ms(all(), 4), Some(6000));
        assert_eq!(Outlook::new(&[0, 1, 2], times.clone(), &HashMap::new()).left_ms(all(), 2), Some(3000));
        assert_eq!(Outlook::new(&[0, 1, 2], times, &HashMap::new()).left_ms(all(), 1), Some(6000));
    }

    #[test]
    fn what_runs_counts_by_what_is_left_of_it() {
        let outlook = Outlook::new(&[0, 1], HashMap::from([(0, 1000), (1, 500)]), &HashMap::from([(0, vec![1])]));
        assert_eq!(outlook.left_ms([pending(0, 400), pending(1, 0)].into_iter(), 2), Some(1100));
        assert_eq!(outlook.left_ms([pending(0, 9000), pending(1, 0)].into_iter(), 2), Some(500));
        let alone = Pending { index: 0, elapsed_ms: 0, jobs: 8 };
        assert_eq!(outlook.left_ms([alone, Pending { index: 1, ..alone }].into_iter(), 2), Some(1500));
    }

    #[test]
    fn nothing_is_said_on_little_evidence() {
        let times = HashMap::from([(0, 1000)]);
        let none = HashMap::new();
        let left = |n: usize| {
            let all: Vec<Index> = (0..n).collect();
            Outlook::new(&all, times.clone(), &none).left_ms(all.iter().map(|i| pending(*i, 0)), 1)
        };
        assert_eq!(left(2), Some(2000));
        assert_eq!(left(3), None);
    }
}
