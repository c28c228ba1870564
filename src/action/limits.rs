//! An action that used up what its target may, told as that.

use super::Ran;
use crate::failure::Failure;
use crate::recipe::terms::{Limit, Limits};
use crate::util::text::{bytes, duration};

/// What programs say of a file that the system does not let grow.
const TOO_LARGE: &str = "File too large";

/// The failure, if a program was ended for one of its limits, or failed at one. `words` are its log.
pub(super) fn reached(ran: &Ran, limits: &Limits, words: &str) -> Option<Failure> {
    use std::os::unix::process::ExitStatusExt;
    let grew = || ran.status.signal() == Some(rustix::process::Signal::XFSZ.as_raw()) || words.contains(TOO_LARGE);
    let limit = ran.stopped.or_else(|| (limits.disk.is_some() && grew()).then_some(Limit::Disk))?;
    let (what, name) = match limit {
        Limit::Time => {
            (format!("it ran for longer than {}", duration((limits.time.unwrap_or_default() * 1e3) as u64)), "time")
        }
        Limit::Memory => (format!("it held more memory than {}", bytes(limits.memory.unwrap_or_default())), "memory"),
        Limit::Disk => (format!("it wrote more than {}", bytes(limits.disk.unwrap_or_default())), "disk"),
    };
    let failure = Failure::target(format!("{what}, which is all its `at-most` gives it"));
    Some(
        failure.help(format!(
            "raise {name}= after `at-most`, or have it do with less; another limit rebuilds nothing else"
        )),
    )
}

/// Whether a run failed for want of memory, by its limit or the machine's.
pub(super) fn is_memory(ran: &Ran, words: &str) -> bool {
    ran.stopped == Some(Limit::Memory) || (ran.stopped.is_none() && super::memory::ran_out(ran, words, &[]).is_some())
}
