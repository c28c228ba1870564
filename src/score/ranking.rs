//! Ranked answers beside what is relevant.

use std::collections::BTreeMap;

/// One query's answers, the best first: how relevant each is, 0 where it is not; and of everything that is relevant to it, how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranked {
    /// Of each answer, in the order given.
    pub gains: Vec<f64>,
    /// Of everything relevant, answered or not.
    pub relevant: Vec<f64>,
}

impl Ranked {
    /// Orders answers by score, the highest first; of equal scores the later identifier first, as trec_eval has it.
    pub fn scored(answers: &[(String, f64)], relevant: &BTreeMap<String, f64>) -> Self {
        let mut order: Vec<&(String, f64)> = answers.iter().collect();
        order.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
        Self::in_order(order.into_iter().map(|(id, _)| id.as_str()), relevant)
    }

    /// Answers in the order in which they are given.
    pub fn in_order<'a>(answers: impl Iterator<Item = &'a str>, relevant: &BTreeMap<String, f64>) -> Self {
        let gain = |id: &str| relevant.get(id).copied().unwrap_or_default().max(0.0);
        Self {
            gains: answers.map(gain).collect(),
            relevant: relevant.values().copied().filter(|gain| *gain > 0.0).collect(),
        }
    }

    fn hits(&self, k: usize) -> f64 {
        self.gains.iter().take(k).filter(|gain| **gain > 0.0).count() as f64
    }

    /// The share of what is relevant that is among the first k; 0 where nothing is.
    pub fn recall(&self, k: usize) -> f64 {
        super::ratio(self.hits(k), self.relevant.len() as f64)
    }

    /// The share of k that is relevant, fewer answers than that or not.
    pub fn precision(&self, k: usize) -> f64 {
        super::ratio(self.hits(k), k as f64)
    }

    /// One over the rank of the first relevant answer; 0 without one.
    pub fn reciprocal_rank(&self) -> f64 {
        self.gains.iter().position(|gain| *gain > 0.0).map_or(0.0, |at| 1.0 / (at + 1) as f64)
    }

    /// The mean, over everything relevant, of the precision at its rank; what is not answered counts 0.
    pub fn average_precision(&self) -> f64 {
        let mut found = 0.0;
        let mut sum = 0.0;
        for (at, _) in self.gains.iter().enumerate().filter(|(_, gain)| **gain > 0.0) {
            found += 1.0;
            sum += found / (at + 1) as f64;
        }
        super::ratio(sum, self.relevant.len() as f64)
    }

    /// Discounted gain of the first k by that of the best order there could be (Järvelin and Kekäläinen, 2002): the gain is the
    /// relevance itself, the discount the binary logarithm of the rank and one.
    pub fn ndcg(&self, k: usize) -> f64 {
        let gain = |gains: &[f64]| -> f64 {
            gains.iter().take(k).enumerate().map(|(at, gain)| gain / ((at + 2) as f64).log2()).sum()
        };
        let mut best = self.relevant.clone();
        best.sort_by(|a, b| b.total_cmp(a));
        super::ratio(gain(&self.gains), gain(&best))
    }
}
