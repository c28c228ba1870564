//! Warm-up, rounds, and when there are enough of them. Reads no clock: time is what the samples say.

use super::quiet::{self, Found};
use super::summary::{median, median_of};
use super::{Sample, Series};
use crate::backend::rng::Rng;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms {
    /// Rounds at least, however long they take.
    pub min: usize,
    /// Rounds at most.
    pub max: usize,
    /// Seconds for warm-up and rounds, of all subjects together; what `min` needs is not held to it.
    pub within_s: f64,
    /// Seconds that rounds take at least: what else the machine does shows only with time.
    pub at_least_s: f64,
    /// Enough is known when the 95 % interval of each median reaches no further than this share of it to either side.
    pub precision: f64,
    /// Of the order within rounds and of intervals.
    pub seed: u64,
}

/// What is measured.
pub trait Bench {
    /// How a run fails.
    type Error;

    /// Runs one of the subjects once.
    fn run(&mut self, subject: usize) -> Result<Sample, Self::Error>;

    /// Runs the probe once; in seconds.
    fn probe(&mut self) -> f64;

    /// A round has ended: so many are done, the warm-up's not among them.
    fn ended(&mut self, _rounds: usize) {}
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Rounds before those that count.
    pub warm_up: usize,
    /// Whether they ended because every subject was steady.
    pub is_steady: bool,
    /// Whether every median is known as well as was asked.
    pub is_precise: bool,
    /// One a subject.
    pub series: Vec<Series>,
    /// The probe: before each round that comes [`PROBED_AFTER_S`] after the last time, and after the last round.
    pub probe_s: Vec<f64>,
    /// So many rounds more do not count, since probes beside them were slow; nor do those.
    pub set_aside: usize,
}

/// The probe runs again when rounds have taken so long, in seconds. A run that comes after it finds colder caches than one that
/// comes after a run: of a program of two milliseconds that is 5 to 30 % of its time.
pub const PROBED_AFTER_S: f64 = 0.05;
/// Runs of a window, of which two are held against each other.
const WINDOW: usize = 5;
/// Rounds of warm-up at most.
const WARM_UP_MAX: usize = 50;
/// Of the time that is given, the share that warm-up may have.
const WARM_UP_SHARE: f64 = 0.2;
/// Intervals are looked at again when there are so many times as many rounds: looking takes time, too.
const LOOK_AGAIN: f64 = 1.25;

/// Measures so many subjects. In each round every subject runs once, in an order that is drawn anew: what drifts hits all
/// alike, and nobody always comes after the same other.
pub fn measure<B: Bench>(bench: &mut B, subjects: usize, terms: &Terms) -> Result<Measured, B::Error> {
    let mut order = Rng::new(terms.seed, "order of rounds");
    let mut spent = 0.0;
    let mut round = |bench: &mut B, series: &mut [Series]| -> Result<f64, B::Error> {
        let mut took = 0.0;
        for subject in order.permutation(subjects) {
            let sample = bench.run(subject)?;
            took += sample.wall_s;
            series[subject].push(sample);
        }
        Ok(took)
    };
    let mut warm = vec![Series::default(); subjects];
    let mut found = Measured { series: warm.clone(), ..Measured::default() };
    while found.warm_up < WARM_UP_MAX && (found.warm_up == 0 || spent < WARM_UP_SHARE * terms.within_s) {
        spent += round(bench, &mut warm)?;
        found.warm_up += 1;
        found.is_steady = warm.iter().all(|series| is_steady(&series.wall_s, terms.precision));
        if found.is_steady {
            break;
        }
    }
    let (mut look_at, mut measured, mut unprobed, mut apart_s) = (terms.min, 0.0, f64::INFINITY, 0f64);
    let mut before = Vec::new();
    for done in 1..=terms.max.max(terms.min) {
        if unprobed >= PROBED_AFTER_S {
            let pace = bench.probe();
            found.probe_s.push(pace);
            (measured, unprobed) = (measured + pace, 0.0);
        }
        let took = round(bench, &mut found.series)?;
        (measured, unprobed) = (measured + took, unprobed + took);
        before.push(found.probe_s.len());
        apart_s = apart_s.max(unprobed);
        bench.ended(done);
        if done < terms.max && (done < terms.min || measured < terms.at_least_s) {
            continue;
        }
        if done >= look_at || done == terms.max {
            let quiet = quiet::rounds(&found.probe_s, &before, apart_s, terms.min);
            found.is_precise =
                quiet != Found::NotYet && found.counting(&quiet).iter().all(|of| is_precise(&of.wall_s, terms));
            look_at = (done as f64 * LOOK_AGAIN).ceil() as usize;
        }
        if found.is_precise || spent + measured >= terms.within_s {
            break;
        }
    }
    found.probe_s.push(bench.probe());
    let quiet = quiet::rounds(&found.probe_s, &before, apart_s, terms.min);
    found.series = found.counting(&quiet);
    found.is_precise = found.series.iter().all(|series| is_precise(&series.wall_s, terms));
    if let Found::Some(counts) = quiet {
        found.probe_s = quiet::probes(&found.probe_s, &before, &counts);
        found.set_aside = counts.iter().filter(|counts| !**counts).count();
    }
    Ok(found)
}

impl Measured {
    /// The series without the rounds that do not count.
    fn counting(&self, quiet: &Found) -> Vec<Series> {
        let mut series = self.series.clone();
        if let Found::Some(counts) = quiet {
            series.iter_mut().for_each(|series| series.keep(counts));
        }
        series
    }
}

/// Whether the last runs are no quicker and no slower than those before them. Georges, Buytaert and Eeckhout,
/// "Statistically rigorous Java performance evaluation", OOPSLA 2007, go by how little a window of runs varies; here the
/// medians of two windows are held against each other, since a program's runs have a long tail that never settles.
fn is_steady(times: &[f64], precision: f64) -> bool {
    let Some(from) = times.len().checked_sub(2 * WINDOW) else { return false };
    let (before, last) = times[from..].split_at(WINDOW);
    (median_of(last) / median_of(before) - 1.0).abs() <= precision
}

fn is_precise(times: &[f64], terms: &Terms) -> bool {
    let e = median(times, terms.seed);
    (e.high - e.value).max(e.value - e.low) <= terms.precision * e.value
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Programs that are made up: how long the n-th run of each takes.
    pub(crate) struct Made<'a> {
        pub(crate) time: &'a mut dyn FnMut(usize, usize) -> f64,
        pub(crate) ran: Vec<usize>,
        pub(crate) order: Vec<usize>,
        /// How long the probe takes after so many runs.
        pub(crate) pace: fn(usize) -> f64,
    }

    impl<'a> Made<'a> {
        pub(crate) fn new(subjects: usize, time: &'a mut dyn FnMut(usize, usize) -> f64) -> Self {
            Self { time, ran: vec![0; subjects], order: Vec::new(), pace: |_| 1e-3 }
        }
    }

    impl Bench for Made<'_> {
        type Error = String;

        fn run(&mut self, subject: usize) -> Result<Sample, String> {
            let wall_s = (self.time)(subject, self.ran[subject]);
            self.ran[subject] += 1;
            self.order.push(subject);
            if wall_s.is_nan() {
                Err("it failed".into())
            } else {
                Ok(Sample { wall_s, cpu_s: wall_s, peak_bytes: 1, first_s: None })
            }
        }

        fn probe(&mut self) -> f64 {
            (self.pace)(self.order.len())
        }
    }

    pub(crate) const TERMS: Terms =
        Terms { min: 10, max: 1000, within_s: 1e9, at_least_s: 0.0, precision: 0.02, seed: 7 };

    #[test]
    fn warming_up_is_left_out_and_ends_when_it_is_steady() {
        // Twice as long at first, and then ever less so.
        let mut time = |_, run: usize| 0.1 * (1.0 + (-(run as f64) / 4.0).exp());
        let found = measure(&mut Made::new(1, &mut time), 1, &TERMS).unwrap();
        assert!(found.is_steady && found.warm_up > 15 && found.warm_up < 40, "{}", found.warm_up);
        assert!(found.series[0].wall_s[0] < 0.103 && found.is_precise, "{:?}", found.series[0].wall_s);
        let found = measure(&mut Made::new(1, &mut |_, _| 0.1), 1, &TERMS).unwrap();
        assert_eq!((found.warm_up, found.series[0].wall_s.len(), found.probe_s.len()), (2 * WINDOW, 10, 11));
    }

    #[test]
    fn of_what_is_short_most_runs_come_after_a_run() {
        let found = measure(&mut Made::new(1, &mut |_, _| 0.004), 1, &Terms { min: 20, max: 20, ..TERMS }).unwrap();
        assert_eq!((found.series[0].wall_s.len(), found.probe_s.len()), (20, 3));
    }

    #[test]
    fn rounds_beside_a_busy_neighbour_are_set_aside() {
        // He comes after the first forty runs, warm-up and all, and stays for forty more.
        let is_there = |runs: usize| runs / 40 % 2 == 1;
        let mut runs = 0;
        let mut time = |_, _| {
            runs += 1;
            if is_there(runs) { 0.16 } else { 0.1 }
        };
        let mut made = Made::new(1, &mut time);
        made.pace = |runs| if runs / 40 % 2 == 1 { 1.4e-3 } else { 1e-3 };
        let found = measure(&mut made, 1, &Terms { at_least_s: 24.0, ..TERMS }).unwrap();
        assert!((60..130).contains(&found.set_aside), "{}", found.set_aside);
        let times = &found.series[0].wall_s;
        assert!(times.len() > 80, "{}", times.len());
        assert!(
            times.iter().all(|time| *time == 0.1) && found.probe_s.iter().all(|pace| *pace == 1e-3) && found.is_precise
        );
    }

    #[test]
    fn what_never_settles_is_said_and_does_not_take_all_the_time() {
        let mut time = |_, run: usize| 0.1 * 1.05f64.powi(run as i32);
        let found = measure(&mut Made::new(1, &mut time), 1, &Terms { within_s: 5.0, ..TERMS }).unwrap();
        assert!(!found.is_steady && !found.is_precise, "{found:?}");
        assert!(found.warm_up < 10 && found.series[0].wall_s.len() >= 10, "{found:?}");
    }

    #[test]
    fn rounds_go_on_until_the_interval_is_narrow_or_the_time_is_up() {
        let noisy = |spread: f32| {
            let mut rng = Rng::new(3, "noise");
            move |_, _| f64::from(0.1 + rng.between(-spread, spread))
        };
        let rounds = |spread, terms: &Terms| {
            let mut time = noisy(spread);
            let found = measure(&mut Made::new(1, &mut time), 1, terms).unwrap();
            (found.series[0].wall_s.len(), found.is_precise)
        };
        let (few, many) = (rounds(0.002, &TERMS), rounds(0.02, &TERMS));
        assert_eq!(few, (10, true));
        assert!(many.1 && many.0 > 40, "{many:?}");
        // Two seconds of warm-up at most, of a tenth each, then the rest.
        assert!(!rounds(0.08, &Terms { within_s: 4.0, ..TERMS }).1);
        assert_eq!(rounds(0.08, &Terms { max: 12, ..TERMS }), (12, false));
        assert_eq!(rounds(0.08, &Terms { within_s: 0.0, ..TERMS }), (10, false));
        assert_eq!(rounds(0.002, &Terms { at_least_s: 3.0, ..TERMS }).0, 30);
    }

    #[test]
    fn subjects_take_turns_in_an_order_that_the_seed_gives() {
        let order = |seed| {
            let mut time = |_, _| 0.1;
            let mut made = Made::new(3, &mut time);
            measure(&mut made, 3, &Terms { seed, ..TERMS }).unwrap();
            made.order
        };
        let one = order(7);
        for round in one.chunks(3) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2]);
        }
        assert!(one.chunks(3).any(|round| round != &one[..3]) && one == order(7) && one != order(8));
    }

    #[test]
    fn a_run_that_fails_ends_it() {
        let mut time = |subject, run| if (subject, run) == (1, 12) { f64::NAN } else { 0.1 };
        assert_eq!(measure(&mut Made::new(2, &mut time), 2, &TERMS), Err("it failed".into()));
    }
}
