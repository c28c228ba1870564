//! effai as a library: how long a function takes, with the median's interval and what the machine did meanwhile.
//!
//! ```text
//! cargo run --example timing -- LIBRARY STEPS
//! ```
//!
//! The function is that of a library, `function(u64) -> u64`: `tests/reference/timing` has criterion time the same one, which
//! would lie elsewhere in another program, and take longer or shorter for that. Prints one object of JSON.

#![expect(unsafe_code, reason = "a function of a library, whose type nobody can hold it to")]

use std::convert::Infallible;
use std::hint::black_box;

use effai::measure::noise::Watch;
use effai::measure::probe::{self, Probe};
use effai::measure::rounds::{Bench, Terms, measure};
use effai::measure::summary::median;
use effai::measure::{Sample, calls};
use libloading::{Library, Symbol};

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
    let mut args = std::env::args().skip(1);
    let (library, steps) = (args.next().expect("a library"), args.next().expect("steps"));
    let steps: u64 = steps.parse().expect("a number");
    // SAFETY: the library is tests/reference/criterion/src/function.rs, which does nothing when it is loaded.
    let library = unsafe { Library::new(library) }.expect("it loads");
    // SAFETY: that is its type.
    let function: Symbol<'_, extern "C" fn(u64) -> u64> = unsafe { library.get(b"function") }.expect("it is there");
    let terms = Terms { min: 100, max: 1000, within_s: 10.0, at_least_s: 1.0, precision: 0.01, seed: 0 };
    let watch = Watch::begin();
    let timed = calls(|| {
        let _ = black_box(function(black_box(steps)));
    });
    let Ok(found) = measure(&mut Function(timed), 1, &terms);
    let noise = watch.end(0.0);
    let e = median(&found.series[0].wall_s, terms.seed);
    let probe = Probe { steps: probe::STEPS, seconds: found.probe_s };
    let told = serde_json::json!({
        "median_s": e.value, "low_s": e.low, "high_s": e.high, "rounds": found.series[0].wall_s.len(),
        "spread": probe.spread(), "busy": noise.busy(&probe),
    });
    println!("{told}");
}
