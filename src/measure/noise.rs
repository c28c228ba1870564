//! What the machine did besides, as far as it says: other programs' CPU time, waiting, pace, heat, energy. From Linux's
//! `/proc` and `/sys`; on another system, and where a file is not to be read, there is nothing, and that is told.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::probe::Probe;
use crate::util::fs;

/// What the machine did while something was measured. None of what cannot be read here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// How many cores other programs kept busy, on average. None of less than half a second.
    pub others_cores: Option<f64>,
    /// How many cores the host of a virtual machine gave to others, likewise.
    pub stolen_cores: Option<f64>,
    /// The share of the time in which something waited for a core: Linux's pressure stall information.
    pub waiting: Option<f64>,
    /// The lowest and the highest pace of a core in MHz, looked at whenever the probe runs.
    pub mhz: Option<(f64, f64)>,
    /// How often cores were slowed down for heat.
    pub throttled: Option<u64>,
    /// How often the measuring thread was put aside for another one.
    pub put_aside: Option<u64>,
    /// What the processor used, in joules, by RAPL.
    pub energy_j: Option<f64>,
}

/// Others may keep so many cores busy, on average.
const OTHERS_CORES_MAX: f64 = 0.2;
/// A host may take so many.
const STOLEN_CORES_MAX: f64 = 0.1;
/// The probe may vary by so much, from its 10th to its 90th percentile: on a quiet machine it does by 1 or 2 %, on a quiet virtual
/// one by 6 to 8.
pub(super) const SPREAD_MAX: f64 = 0.1;
/// The system counts CPU time in hundredths of a second: of less than this it says nothing.
const SECONDS_MIN: f64 = 0.5;
/// So many ticks are a second, to user space, on every architecture there still is.
const TICKS: f64 = 100.0;

impl Noise {
    /// Why the machine was too busy for its numbers to be compared; nothing where it was quiet.
    pub fn busy(&self, probe: &Probe) -> Vec<String> {
        let mut busy = Vec::new();
        if let Some(cores) = self.others_cores.filter(|cores| *cores > OTHERS_CORES_MAX) {
            busy.push(format!("other programs kept {cores:.1} cores busy"));
        }
        if let Some(cores) = self.stolen_cores.filter(|cores| *cores > STOLEN_CORES_MAX) {
            busy.push(format!("the host of this virtual machine gave {cores:.1} cores to others"));
        }
        if let Some(times) = self.throttled.filter(|times| *times > 0) {
            busy.push(format!("cores were slowed down for heat {times} times"));
        }
        let spread = probe.spread();
        if spread > SPREAD_MAX {
            busy.push(format!("a probe of fixed work varied by {:.0} %", 100.0 * spread));
        }
        busy
    }
}

/// Looks at the machine from one moment to another.
#[derive(Debug)]
pub struct Watch {
    begin: Instant,
    seen: Seen,
    mhz: Option<(f64, f64)>,
}

/// Counters at one moment.
#[derive(Debug, Default)]
struct Seen {
    /// Seconds of all cores that were not idle, and that were taken by a host.
    cores: Option<(f64, f64)>,
    /// Seconds of this process and of its children that have ended.
    own: Option<f64>,
    waiting_us: Option<u64>,
    throttled: Option<u64>,
    put_aside: Option<u64>,
    /// Of each processor: microjoules, and where they begin at 0 again.
    energy_uj: Vec<(u64, u64)>,
}

impl Watch {
    /// Begins now; of this thread.
    pub fn begin() -> Self {
        Self { begin: Instant::now(), seen: Seen::now(), mhz: None }
    }

    /// Looks at how fast the cores are just now.
    pub fn look(&mut self) {
        for mhz in cores("cpufreq/scaling_cur_freq").filter_map(|path| number(&path)).map(|khz| khz as f64 / 1e3) {
            let (low, high) = self.mhz.unwrap_or((mhz, mhz));
            self.mhz = Some((low.min(mhz), high.max(mhz)));
        }
    }

    /// What was since the begin, on the same thread. Children that still run, of which the system says nothing yet, had so many
    /// seconds of CPU time since then.
    pub fn end(self, children_s: f64) -> Noise {
        let (seconds, seen, mhz) = (self.begin.elapsed().as_secs_f64(), self.seen, self.mhz);
        let now = Seen::now();
        let own = now.own.map(|own| own + children_s);
        between(&seen, &Seen { own, ..now }, seconds, mhz)
    }
}

fn between(then: &Seen, now: &Seen, seconds: f64, mhz: Option<(f64, f64)>) -> Noise {
    let is_long = seconds >= SECONDS_MIN;
    let cores = now.cores.zip(then.cores).filter(|_| is_long);
    let own = now.own.zip(then.own).map(|(now, then)| now - then);
    let more = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
    let energy =
        now.energy_uj.iter().zip(&then.energy_uj).map(|((now, wrap), (then, _))| match now.checked_sub(*then) {
            Some(used) => used,
            None => now + wrap - then,
        });
    Noise {
        others_cores: cores.zip(own).map(|((now, then), own)| ((now.0 - then.0 - own) / seconds).max(0.0)),
        stolen_cores: cores.map(|(now, then)| ((now.1 - then.1) / seconds).max(0.0)),
        waiting: more(now.waiting_us, then.waiting_us).map(|us| us as f64 / 1e6 / seconds),
        mhz,
        throttled: more(now.throttled, then.throttled),
        put_aside: more(now.put_aside, then.put_aside),
        energy_j: (!now.energy_uj.is_empty()).then(|| energy.sum::<u64>() as f64 / 1e6),
    }
}

impl Seen {
    fn now() -> Self {
        let text = |path: &str| fs::read_text(path.as_ref()).unwrap_or_default();
        let throttled: Vec<u64> =
            cores("thermal_throttle/core_throttle_count").filter_map(|path| number(&path)).collect();
        Self {
            cores: of_cores(&text("/proc/stat")),
            own: of_process(&text("/proc/self/stat")),
            waiting_us: waiting(&text("/proc/pressure/cpu")),
            throttled: (!throttled.is_empty()).then(|| throttled.iter().sum()),
            put_aside: put_aside(&text("/proc/thread-self/status")),
            energy_uj: energy(),
        }
    }
}

/// Seconds of all cores that were at work, and that a host took. A host's are not this machine's work.
fn of_cores(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what guests of ours take is within user.
    let [user, nice, system, idle, _, irq, softirq, steal, ..] = ticks[..] else { return None };
    // A sandbox that tells nothing tells zeros.
    (idle > 0.0).then_some(((user + nice + system + irq + softirq) / TICKS, steal / TICKS))
}

/// Seconds of this process and of its children that have ended. Its name, in brackets, may hold anything.
fn of_process(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|word| word.parse::<f64>().ok());
    Some(ticks.sum::<f64>() / TICKS)
}

fn waiting(pressure: &str) -> Option<u64> {
    pressure.lines().find(|line| line.starts_with("some"))?.rsplit_once("total=")?.1.trim().parse().ok()
}

fn put_aside(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// This file of each core.
fn cores(file: &'static str) -> impl Iterator<Item = PathBuf> {
    let dirs = fs::list("/sys/devices/system/cpu".as_ref()).unwrap_or_default().into_iter();
    let is_core = |dir: &PathBuf| {
        let number = dir.file_name().and_then(|name| name.to_str()?.strip_prefix("cpu"));
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    dirs.filter(is_core).map(move |dir| dir.join(file))
}

fn number(path: &Path) -> Option<u64> {
    fs::read_text(path).ok()?.trim().parse().ok()
}

/// The counter of each processor, and where it begins again. Mostly root's alone to read.
fn energy() -> Vec<(u64, u64)> {
    let zones = fs::list("/sys/class/powercap".as_ref()).unwrap_or_default();
    // `intel-rapl:0` is a processor, `intel-rapl:0:1` a part of it.
    let is_whole = |dir: &&PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("intel-rapl:").is_some_and(|rest| !rest.contains(':'))
    };
    let counter = |dir: &PathBuf| Some((number(&dir.join("energy_uj"))?, number(&dir.join("max_energy_range_uj"))?));
    zones.iter().filter(is_whole).filter_map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  100 10 50 5000 7 3 2 40 20 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";

    fn probe(seconds: &[f64]) -> Probe {
        Probe { steps: 1, seconds: seconds.to_vec() }
    }

    #[test]
    fn what_linux_says_is_read() {
        assert_eq!(of_cores(STAT), Some((1.65, 0.4)));
        assert_eq!(of_cores("cpu  0 0 0 0 0 0 0 0 0 0\n"), None);
        let process = "7 (a) b) S 1 7 7 0 -1 4194304 96 0 0 0 30 20 5 1 20 0 1 0 4193403 3133440 363";
        assert_eq!(of_process(process), Some(0.56));
        assert_eq!(waiting("some avg10=0.63 avg60=2.66 avg300=7.95 total=22\nfull avg10=0.00 total=1\n"), Some(22));
        assert_eq!(put_aside("voluntary_ctxt_switches:\t3\nnonvoluntary_ctxt_switches:\t12\n"), Some(12));
        assert_eq!((waiting(""), put_aside(""), of_process("")), (None, None, None));
    }

    #[test]
    fn what_others_did_is_what_is_left() {
        let then = Seen { cores: Some((10.0, 1.0)), own: Some(2.0), energy_uj: vec![(90, 100)], ..Seen::default() };
        let now = Seen { cores: Some((16.0, 1.5)), own: Some(4.0), energy_uj: vec![(5, 100)], ..Seen::default() };
        let noise = between(&then, &now, 4.0, None);
        assert_eq!((noise.others_cores, noise.stolen_cores), (Some(1.0), Some(0.125)));
        assert_eq!((noise.waiting, noise.throttled, noise.energy_j), (None, None, Some(15e-6)));
        assert_eq!(between(&then, &now, 0.3, None).others_cores, None, "too short");
        let quiet = Seen { cores: Some((11.9, 1.0)), own: Some(4.0), ..Seen::default() };
        assert_eq!(between(&then, &quiet, 4.0, None).others_cores, Some(0.0), "ticks are coarse");
    }

    #[test]
    fn a_busy_machine_says_by_what() {
        let quiet = Noise { others_cores: Some(0.1), stolen_cores: Some(0.0), throttled: Some(0), ..Noise::default() };
        assert!(quiet.busy(&probe(&[1.0, 1.01, 1.02, 9.0, 1.0, 1.01, 1.0, 1.0, 1.0, 1.0, 1.01])).is_empty());
        assert!(Noise::default().busy(&probe(&[])).is_empty());
        let busy = Noise { others_cores: Some(1.44), stolen_cores: Some(0.3), throttled: Some(2), ..quiet };
        // Of two values the percentiles lie between them.
        let expected = [
            "other programs kept 1.4 cores busy",
            "the host of this virtual machine gave 0.3 cores to others",
            "cores were slowed down for heat 2 times",
            "a probe of fixed work varied by 32 %",
        ];
        assert_eq!(busy.busy(&probe(&[1.0, 1.5])), expected);
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let mut watch = Watch::begin();
        watch.look();
        let noise = watch.end(0.0);
        assert!(noise.others_cores.is_none(), "it took no time");
    }
}
