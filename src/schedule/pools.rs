//! Who may run beside whom.

use crate::kind::Pool;

/// Downloads at once: more gain nothing and offend registries.
const NETWORK_DEPTH: usize = 4;

/// What runs in each pool now.
#[derive(Debug)]
pub(super) struct Pools {
    jobs: usize,
    cpu: usize,
    gpu: usize,
    machine: usize,
    network: usize,
    /// Bytes that may be used, and that those who run now used at their last run's peak.
    memory_max: u64,
    memory: u64,
}

impl Pools {
    pub(super) fn new(jobs: usize) -> Self {
        Self::with_memory(jobs, crate::util::machine::memory_bytes().unwrap_or(u64::MAX) / 10 * 9)
    }

    pub(super) fn with_memory(jobs: usize, memory_max: u64) -> Self {
        Self { jobs: jobs.max(1), cpu: 0, gpu: 0, machine: 0, network: 0, memory_max, memory: 0 }
    }

    /// Whether an action that needed so much memory may run beside those that run. One alone always may.
    pub(super) fn has_memory(&self, bytes: u64) -> bool {
        self.cpu + self.gpu + self.machine + self.network == 0 || self.memory.saturating_add(bytes) <= self.memory_max
    }

    /// Whether one more may run. One that uses the GPU is a job like others, which keep it fed; what uses the whole
    /// machine runs beside nothing but downloads.
    pub(super) fn has_room(&self, pool: Pool) -> bool {
        match pool {
            Pool::Cpu => self.machine == 0 && self.cpu + self.gpu < self.jobs,
            Pool::Gpu => self.machine + self.gpu == 0 && self.cpu < self.jobs,
            Pool::Machine => self.machine + self.gpu + self.cpu == 0,
            Pool::Network => self.network < NETWORK_DEPTH,
        }
    }

    pub(super) fn enter(&mut self, pool: Pool, memory: u64) {
        *self.depth(pool) += 1;
        self.memory += memory;
    }

    pub(super) fn leave(&mut self, pool: Pool, memory: u64) {
        *self.depth(pool) -= 1;
        self.memory -= memory;
    }

    /// Threads for an action of this pool.
    pub(super) fn threads(&self, pool: Pool) -> usize {
        match pool {
            Pool::Machine => self.jobs,
            Pool::Cpu | Pool::Gpu | Pool::Network => 1,
        }
    }

    fn depth(&mut self, pool: Pool) -> &mut usize {
        match pool {
            Pool::Cpu => &mut self.cpu,
            Pool::Gpu => &mut self.gpu,
            Pool::Machine => &mut self.machine,
            Pool::Network => &mut self.network,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_run_beside_whom() {
        let mut pools = Pools::with_memory(2, u64::MAX);
        let room = |pools: &Pools| [Pool::Cpu, Pool::Gpu, Pool::Machine, Pool::Network].map(|p| pools.has_room(p));
        assert_eq!(room(&pools), [true, true, true, true]);
        pools.enter(Pool::Gpu, 0);
        assert_eq!(room(&pools), [true, false, false, true], "one at a time that uses the GPU");
        pools.enter(Pool::Cpu, 0);
        assert_eq!(room(&pools), [false, false, false, true], "it is one of the jobs");
        pools.leave(Pool::Gpu, 0);
        assert_eq!(room(&pools), [true, true, false, true]);
        pools.leave(Pool::Cpu, 0);
        pools.enter(Pool::Machine, 0);
        assert_eq!(room(&pools), [false, false, false, true]);
    }
}
