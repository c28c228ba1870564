//! What the losses of a training say about it: that it diverges, or that it stands still.
//!
//! A single loss is noise, so means of [`WINDOW`] losses in a row are looked at, at the beginning of those there are. A training diverges where a loss is no
//! number, or where the mean of the last is more than `above` times the least that there was, and more than [`MARGIN`] over
//! it: a loss near zero doubles for nothing. It stands still where the mean of the last [`STILL`] losses is not a
//! thousandth below that of as many before.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Losses of one mean.
pub const WINDOW: usize = 10;
/// Nats over the least mean that are no noise.
pub const MARGIN: f64 = 0.5;
/// Losses of one mean where it is asked whether a training stands still.
pub const STILL: usize = 100;

/// What is done where a training diverges.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct OnDivergence {
    /// How often it goes on from its last kept state.
    pub retries: usize,
    /// What the learning rate is multiplied by each time.
    pub factor: f64,
    /// How many times the least mean is too much.
    pub above: f64,
}

impl Default for OnDivergence {
    fn default() -> Self {
        Self { retries: 0, factor: 0.5, above: 3.0 }
    }
}

/// One time that it went on from its last kept state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// The step that was not taken.
    pub step: u64,
    /// Its loss; none where that was no number.
    pub loss: Option<f64>,
    /// The step it went on from.
    pub from: u64,
    /// What learning rates are multiplied by from there.
    pub factor: f64,
}

/// Follows the losses of a training.
#[derive(Clone, Debug)]
pub struct Watch {
    above: f64,
    last: VecDeque<f64>,
    least: f64,
}

impl Watch {
    /// Of a training that had these losses.
    pub fn new(above: f64, losses: impl Iterator<Item = f64>) -> Self {
        let mut own = Self { above, last: VecDeque::new(), least: f64::INFINITY };
        losses.for_each(|loss| {
            own.diverges(loss);
        });
        own
    }

    /// Takes a loss down, and says whether the training diverges.
    pub fn diverges(&mut self, loss: f64) -> bool {
        if !loss.is_finite() {
            return true;
        }
        self.last.push_back(loss);
        if self.last.len() > WINDOW {
            self.last.pop_front();
        }
        let mean = mean(self.last.iter());
        self.least = self.least.min(mean);
        mean > self.above * self.least && mean > self.least + MARGIN
    }
}

/// The means of the last losses and of as many before, where a training begins to stand still.
pub fn stands_still(losses: &[f64]) -> Option<(f64, f64)> {
    let still = |losses: &[f64]| -> Option<(f64, f64)> {
        let (rest, last) = losses.split_at_checked(losses.len().checked_sub(STILL)?)?;
        let (_, before) = rest.split_at_checked(rest.len().checked_sub(STILL)?)?;
        let (last, before) = (mean(last.iter()), mean(before.iter()));
        (last > before * (1.0 - 1e-3)).then_some((last, before))
    };
    if !losses.len().is_multiple_of(STILL) {
        return None;
    }
    // It is told once, not every time.
    let known = losses.len().checked_sub(STILL).and_then(|before| still(&losses[..before])).is_some();
    still(losses).filter(|_| !known)
}

fn mean<'a>(losses: impl ExactSizeIterator<Item = &'a f64>) -> f64 {
    let n = losses.len() as f64;
    losses.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_and_losses_near_zero_are_no_divergence() {
        let noisy = (0..200).map(|i| 2.0 + f64::from(i * 37 % 11) / 5.0);
        let mut watch = Watch::new(3.0, std::iter::empty());
        assert!(noisy.clone().all(|loss| !watch.diverges(loss)));
        assert!(!watch.diverges(9.0), "one large loss is a hard record");
        assert!(watch.diverges(f64::NAN));
        let first = (0..20).position(|_| watch.diverges(12.0));
        assert!(first.is_some_and(|n| n < WINDOW), "{first:?}");
        let mut near_zero = Watch::new(3.0, std::iter::repeat_n(0.01, 20));
        assert!((0..20).all(|_| !near_zero.diverges(0.2)));
    }

    #[test]
    fn a_watch_taken_up_again_says_the_same() {
        let losses: Vec<f64> = (0..30).map(|i| 1.0 + f64::from(i) / 4.0).collect();
        let mut whole = Watch::new(2.0, std::iter::empty());
        let all: Vec<bool> = losses.iter().map(|loss| whole.diverges(*loss)).collect();
        for cut in [3, 12, 25] {
            let mut again = Watch::new(2.0, losses[..cut].iter().copied());
            assert!(losses[cut..].iter().zip(&all[cut..]).all(|(loss, told)| again.diverges(*loss) == *told));
        }
        assert!(all.contains(&true));
    }

    #[test]
    fn standing_still_is_told_when_it_begins() {
        let flat = vec![2.0; 400];
        let told: Vec<usize> = (0..=400).filter(|n| stands_still(&flat[..*n]).is_some()).collect();
        assert_eq!(told, [200]);
        let falling: Vec<f64> = (0..400).map(|i| 3.0 / f64::from(i + 1).sqrt()).collect();
        assert!((0..=400).all(|n| stands_still(&falling[..n]).is_none()));
    }
}
