//! How long something takes, and how far that can be believed.
//!
//! ```text
//! rounds    warm-up until steady, subjects in turn, until the medians are known well enough -> samples
//! quiet     which rounds count where the machine's pace comes and goes                      -> fewer samples
//! noise     what the machine did besides, and how steady its pace was by a probe            -> busy, or not
//! summary   percentiles, intervals, ratios of two subjects                                  -> what is told
//! kept      samples, probe and machine in a file; two of these against each other           -> a verdict
//! ```
//!
//! What is timed is the caller's: a program (`action/timed.rs`), what a model does ([`workload`]) or a function ([`calls`]). [`rounds`] and [`summary`] read
//! no clock and look at no machine, so they are tested on samples that are made up. Intervals are by the one bootstrap
//! there is, [`estimate`]. [`hardware`] is what a machine can do at most. Definitions: `docs/metrics.md`.
//!
//! Invariant: on a machine that was busy nothing is said to differ.

pub mod estimate;
pub mod hardware;
pub mod kept;
pub mod noise;
pub mod probe;
mod quiet;
pub mod rounds;
pub mod summary;
pub mod workload;

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What one run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// From its start to its end, in seconds.
    pub wall_s: f64,
    /// User and system time of all its threads, and of those of its children that it waited for, in seconds.
    pub cpu_s: f64,
    /// The most memory it held, in bytes; 0 where it is not known.
    pub peak_bytes: u64,
    /// Of a language model: from its start until the first token was known, in seconds.
    pub first_s: Option<f64>,
}

/// What each round of one subject took, in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Wall time in seconds.
    pub wall_s: Vec<f64>,
    /// CPU time in seconds.
    pub cpu_s: Vec<f64>,
    /// Peak memory in bytes.
    pub peak_bytes: Vec<u64>,
    /// Of a language model the time until the first token was known, in seconds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first_s: Vec<f64>,
}

impl Series {
    /// One more round.
    pub fn push(&mut self, sample: Sample) {
        self.wall_s.push(sample.wall_s);
        self.cpu_s.push(sample.cpu_s);
        self.peak_bytes.push(sample.peak_bytes);
        self.first_s.extend(sample.first_s);
    }

    /// Without the rounds that do not count.
    fn keep(&mut self, counts: &[bool]) {
        fn kept<T>(of: &mut Vec<T>, counts: &[bool]) {
            let mut counts = counts.iter();
            of.retain(|_| *counts.next().unwrap_or(&true));
        }
        kept(&mut self.wall_s, counts);
        kept(&mut self.cpu_s, counts);
        kept(&mut self.peak_bytes, counts);
        kept(&mut self.first_s, counts);
    }
}

/// A round of a function is at least this long: far above what reading the clock takes.
const CALLS_S_MIN: f64 = 1e-3;

/// A function as a subject: each run calls it so often that it takes a millisecond, and gives the mean of those calls.
pub fn calls(mut function: impl FnMut()) -> impl FnMut() -> Sample {
    let mut times = 1u32;
    move || loop {
        let begin = Instant::now();
        (0..times).for_each(|_| function());
        let wall_s = begin.elapsed().as_secs_f64();
        if wall_s >= CALLS_S_MIN || times > u32::MAX / 2 {
            let wall_s = wall_s / f64::from(times);
            return Sample { wall_s, cpu_s: wall_s, ..Sample::default() };
        }
        times *= 2;
    }
}
