//! The machine's pace: a fixed piece of arithmetic, timed again and again beside what is measured.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::summary::{quantile, sorted};
use crate::backend::spin::spin;

/// Steps of the probe: about a millisecond at 3 GHz. Another number is another probe, and nothing to compare with.
pub const STEPS: u64 = 600_000;

/// How long the probe took each time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Steps of arithmetic each time.
    pub steps: u64,
    /// In seconds: before rounds, and after the last. Where rounds were set aside, of those that count.
    pub seconds: Vec<f64>,
}

impl Probe {
    /// How far it varied: [`spread`].
    pub fn spread(&self) -> f64 {
        spread(&self.seconds)
    }
}

/// How far times vary: from the 10th to the 90th percentile, as a share of the median. 0 of fewer than two.
pub fn spread(seconds: &[f64]) -> f64 {
    let sorted = sorted(seconds);
    match sorted.len() {
        0 | 1 => 0.0,
        _ => (quantile(&sorted, 0.9) - quantile(&sorted, 0.1)) / quantile(&sorted, 0.5),
    }
}

/// Runs it once; in seconds.
pub fn probe() -> f64 {
    let begin = Instant::now();
    let _ = spin(STEPS);
    begin.elapsed().as_secs_f64()
}
