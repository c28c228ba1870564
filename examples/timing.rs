//! effai as a library: how long a function takes, with the median's interval and what the machine did meanwhile.
//!
//! ```text
//! cargo run --example timing
//! ```
//!
//! The function is that which `tests/reference/timing` has criterion time, too. Prints one object of JSON.

#[path = "../tests/reference/criterion/src/function.rs"]
mod function;

use std::convert::Infallible;
use std::hint::black_box;

use effai::measure::noise::Watch;
use effai::measure::probe::{self, Probe};
use effai::measure::rounds::{Bench, Terms, measure};
use effai::measure::summary::median;
use effai::measure::{Sample, calls};

struct Function<F>(F);

impl<F: FnMut() -> Sample> Bench for Function<F> {
    type Error = Infallible;

    fn run(&mut self, _subject: usize) -> Result<Sample, Infallible> {
        Ok((self.0)())
    }

    fn probe(&mut self) -> f64 {
        probe::probe()
    }
}

#[expect(clippy::print_stdout, reason = "an example prints")]
fn main() {
    let terms = Terms { min: 100, max: 1000, within_s: 10.0, at_least_s: 1.0, precision: 0.01, seed: 0 };
    let watch = Watch::begin();
    let function = calls(|| {
        let _ = black_box(function::function(black_box(function::STEPS)));
    });
    let Ok(found) = measure(&mut Function(function), 1, &terms);
    let noise = watch.end(0.0);
    let e = median(&found.series[0].wall_s, terms.seed);
    let probe = Probe { steps: probe::STEPS, seconds: found.probe_s };
    let told = serde_json::json!({
        "median_s": e.value, "low_s": e.low, "high_s": e.high, "rounds": found.series[0].wall_s.len(),
        "spread": probe.spread(), "busy": noise.busy(&probe),
    });
    println!("{told}");
}
