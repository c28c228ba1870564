//! Places where the crash tests end this process, as a kill would: before and after every step that changes a disk.
//!
//! `EFFAI_CRASH_AT=N` ends it at the Nth step. So a test can go through all of them, N = 1, 2, 3, until the program comes
//! to its own end. Programs built without debug assertions have none of this.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Steps left before the end; zero where none was asked for.
    static LEFT: AtomicU64 = AtomicU64::new(0);

    /// Asks for an end at the Nth step.
    pub fn arm(steps: u64) {
        LEFT.store(steps, Ordering::Relaxed);
    }

    /// Whether this process is to end at a step.
    pub fn is_armed() -> bool {
        LEFT.load(Ordering::Relaxed) != 0
    }

    /// A step that changes a disk begins or has just ended.
    pub fn step() {
        if is_armed() && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}

#[cfg(debug_assertions)]
pub use armed::{arm, is_armed, step};

/// A step that changes a disk begins or has just ended.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn step() {}
