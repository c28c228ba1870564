//! The order in which what can run is started: longest way to the end first, by the durations of earlier runs.
//!
//! With `n` workers this list schedule ends within 2 - 1/n of the best there is (Graham, 1969); mostly far nearer.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use super::pools::Pools;
use crate::kind::Pool;
use crate::plan::Index;
use crate::record::Past;

/// Looked past where they do not fit into memory, before a smaller one is started.
const PASSED_OVER_MAX: usize = 64;

/// The pools in the order they are served: what waits for others' machines first, then for what there is one of.
const POOLS: [Pool; 4] = [Pool::Network, Pool::Gpu, Pool::Machine, Pool::Cpu];

#[derive(Default)]
pub(super) struct Line {
    ready: HashMap<Pool, BTreeSet<(Reverse<u64>, Index)>>,
    /// Milliseconds from the start of a target to the end of the last that stands on it.
    ways: HashMap<Index, u64>,
    memory: HashMap<Index, u64>,
    durations: HashMap<Index, u64>,
}

impl Line {
    /// `open` are the targets that may have to run, in topological order.
    pub(super) fn new(open: &[Index], dependents: &HashMap<Index, Vec<Index>>, past: impl Fn(Index) -> Past) -> Self {
        let mut line = Self::default();
        for &index in open.iter().rev() {
            let past = past(index);
            let on_it = dependents.get(&index).into_iter().flatten();
            let longest = on_it.filter_map(|d| line.ways.get(d)).max().copied().unwrap_or(0);
            line.ways.insert(index, longest + past.wall_ms);
            if past != Past::UNKNOWN {
                line.durations.insert(index, past.wall_ms);
            }
            if past.peak_bytes > 0 {
                line.memory.insert(index, past.peak_bytes);
            }
        }
        line
    }

    pub(super) fn enter(&mut self, pool: Pool, index: Index) {
        let way = self.ways.get(&index).copied().unwrap_or(0);
        self.ready.entry(pool).or_default().insert((Reverse(way), index));
    }

    /// The next that may start now; it leaves the line.
    pub(super) fn next(&mut self, pools: &Pools) -> Option<Index> {
        for pool in POOLS {
            let Some(ready) = self.ready.get_mut(&pool).filter(|r| !r.is_empty() && pools.has_room(pool)) else {
                continue;
            };
            let memory = &self.memory;
            let fits = |i: &Index| pools.has_memory(memory.get(i).copied().unwrap_or(0));
            let found = ready.iter().take(PASSED_OVER_MAX).find(|(_, i)| fits(i)).copied();
            if let Some(place) = found {
                ready.remove(&place);
                return Some(place.1);
            }
        }
        None
    }

    /// How long a target's last run took, in milliseconds.
    pub(super) fn duration(&self, index: Index) -> Option<u64> {
        self.durations.get(&index).copied()
    }

    /// The memory a target's last run needed at its peak, in bytes; 0 if unknown.
    pub(super) fn memory(&self, index: Index) -> u64 {
        self.memory.get(&index).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_way_goes_first_and_what_does_not_fit_waits() {
        // 0 and 1 can start; 2 stands on 1. 3 needs more memory than is free.
        let dependents = HashMap::from([(1, vec![2])]);
        let wall = [50, 10, 100, 500];
        let past = |i: Index| Past { wall_ms: wall[i], peak_bytes: if i == 3 { 900 } else { 10 } };
        let mut line = Line::new(&[0, 1, 2, 3], &dependents, past);
        let mut pools = Pools::with_memory(4, 1000);
        [0, 1, 3].into_iter().for_each(|i| line.enter(Pool::Cpu, i));
        pools.enter(Pool::Cpu, 200);
        assert_eq!(line.next(&pools), Some(1), "10 and then 100 ms are longer than 50");
        pools.leave(Pool::Cpu, 200);
        assert_eq!(line.next(&pools), Some(3), "alone it fits");
        assert_eq!(line.next(&pools), Some(0));
        assert_eq!(line.next(&pools), None);
    }
}
