//! A past build on its time line: what decided how long it took, and what would make it shorter.
//!
//! Pure: [`Slice`]s in, words and trace events out. The critical path is the longest chain of actions that
//! stand on one another, by their wall times: with any number of jobs the build takes that long.

mod advice;
mod events;

pub use advice::advice;
pub use events::events;

/// One action of a build. Times in microseconds from the build's begin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// The target.
    pub label: String,
    /// Its kind.
    pub kind: String,
    /// The key it ran for.
    pub key: String,
    /// `built`, `failed` or `cancelled`.
    pub outcome: String,
    /// Where it waited for its turn: `cpu`, `machine`, `network`.
    pub pool: String,
    /// Everything under it was known.
    pub ready_us: u64,
    /// It began.
    pub start_us: u64,
    /// It ended.
    pub end_us: u64,
    /// User and system time.
    pub cpu_ms: u64,
    /// Peak resident memory.
    pub peak_bytes: u64,
    /// Threads it was given.
    pub threads: usize,
    /// Why it ran.
    pub reasons: Vec<String>,
    /// Actions of this build it stands on, by place in the list; each ended before this began.
    pub after: Vec<usize>,
}

impl Slice {
    /// Wall time.
    pub fn took_us(&self) -> u64 {
        self.end_us.saturating_sub(self.start_us)
    }
}

/// The longest chain, first action first; of equal ones the one found first.
pub fn critical_path(slices: &[Slice]) -> Vec<usize> {
    let order = by_start(slices);
    let mut best: Vec<(u64, Option<usize>)> = vec![(0, None); slices.len()];
    for &at in &order {
        let under = slices[at].after.iter().copied().filter(|i| slices[*i].end_us <= slices[at].start_us);
        let before = under.max_by_key(|i| (best[*i].0, std::cmp::Reverse(*i)));
        best[at] = (slices[at].took_us() + before.map_or(0, |i| best[i].0), before);
    }
    let mut path: Vec<usize> = Vec::new();
    let mut next = order.iter().copied().max_by_key(|i| (best[*i].0, std::cmp::Reverse(*i)));
    while let Some(at) = next {
        path.push(at);
        next = best[at].1;
    }
    path.reverse();
    path
}

/// Actions so that each comes after those it stands on.
fn by_start(slices: &[Slice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..slices.len()).collect();
    order.sort_by_key(|i| (slices[*i].start_us, slices[*i].end_us, *i));
    order
}

/// A lane for each action within its pool: the first that is free when it begins.
fn lanes(slices: &[Slice]) -> Vec<usize> {
    let mut free: std::collections::BTreeMap<&str, Vec<u64>> = std::collections::BTreeMap::new();
    let mut lanes = vec![0; slices.len()];
    for at in by_start(slices) {
        let slice = &slices[at];
        let ends = free.entry(&slice.pool).or_default();
        let lane = ends.iter().position(|end| *end <= slice.start_us).unwrap_or(ends.len());
        if lane == ends.len() {
            ends.push(0);
        }
        ends[lane] = slice.end_us;
        lanes[at] = lane;
    }
    lanes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) fn slice(label: &str, start_ms: u64, end_ms: u64, after: &[usize]) -> Slice {
        Slice {
            label: label.into(),
            pool: "cpu".into(),
            outcome: "built".into(),
            start_us: start_ms * 1000,
            end_us: end_ms * 1000,
            after: after.to_vec(),
            threads: 1,
            ..Slice::default()
        }
    }

    #[test]
    fn the_longest_chain_is_by_time_and_not_by_number() {
        let slices = [
            slice("a", 0, 100, &[]),
            slice("long", 100, 900, &[0]),
            slice("b", 100, 200, &[0]),
            slice("c", 200, 300, &[2]),
            slice("d", 900, 1000, &[1, 3]),
        ];
        assert_eq!(critical_path(&slices), [0, 1, 4]);
        assert_eq!(critical_path(&[]), Vec::<usize>::new());
    }

    #[test]
    fn a_lane_is_used_again_when_it_is_free() {
        let mut slices = vec![
            slice("a", 0, 100, &[]),
            slice("b", 50, 150, &[]),
            slice("c", 100, 200, &[]),
            slice("d", 120, 130, &[]),
        ];
        slices[3].pool = "network".into();
        assert_eq!(lanes(&slices), [0, 1, 0, 0]);
    }
}
