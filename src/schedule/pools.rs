//! Who may run beside whom.

use crate::kind::Pool;

/// Downloads at once: more gain nothing and offend registries.
const NETWORK_DEPTH: usize = 4;

/// What runs in each pool now.
#[derive(Debug)]
pub(super) struct Pools {
    jobs: usize,
    cpu: usize,
    machine: usize,
    network: usize,
}

impl Pools {
    pub(super) fn new(jobs: usize) -> Self {
        Self { jobs: jobs.max(1), cpu: 0, machine: 0, network: 0 }
    }

    /// Whether one more may run. What uses the whole machine runs beside nothing but downloads.
    pub(super) fn has_room(&self, pool: Pool) -> bool {
        match pool {
            Pool::Cpu => self.machine == 0 && self.cpu < self.jobs,
            Pool::Machine => self.machine == 0 && self.cpu == 0,
            Pool::Network => self.network < NETWORK_DEPTH,
        }
    }

    pub(super) fn enter(&mut self, pool: Pool) {
        *self.depth(pool) += 1;
    }

    pub(super) fn leave(&mut self, pool: Pool) {
        *self.depth(pool) -= 1;
    }

    /// Threads for an action of this pool.
    pub(super) fn threads(&self, pool: Pool) -> usize {
        match pool {
            Pool::Machine => self.jobs,
            Pool::Cpu | Pool::Network => 1,
        }
    }

    fn depth(&mut self, pool: Pool) -> &mut usize {
        match pool {
            Pool::Cpu => &mut self.cpu,
            Pool::Machine => &mut self.machine,
            Pool::Network => &mut self.network,
        }
    }
}
