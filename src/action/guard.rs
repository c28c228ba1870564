//! Ends the actions of a build that was killed.
//!
//! A killed build cannot end its actions, and a death signal reaches only the first process of each: the programs that
//! one started would go on writing. So a build that runs anything starts this program once more, as its guard, and tells
//! it over a pipe which process groups run. When the build dies, however it dies, the kernel closes the pipe, and the
//! guard ends what still runs. It has a process group of its own, so what is sent to the build's does not reach it.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use rustix::process::{Pid, Signal, kill_process_group};

/// The hidden verb that makes this program a guard.
pub const VERB: &str = "__guard";

/// One for the process, from its first action on; none where it could not be started: then the death signal must do.
static GUARD: OnceLock<Option<Mutex<ChildStdin>>> = OnceLock::new();

/// From now on this group ends with this process.
pub(super) fn watch(group: Pid) {
    tell(b'+', group);
}

/// This group has ended.
pub(super) fn release(group: Pid) {
    tell(b'-', group);
}

fn tell(word: u8, group: Pid) {
    if let Some(guard) = GUARD.get_or_init(start) {
        let [a, b, c, d] = group.as_raw_nonzero().get().to_le_bytes();
        // One write: whole or not at all. A guard that was killed cannot be helped.
        let _ = guard.lock().expect("no panic holds this").write_all(&[word, a, b, c, d]);
    }
}

fn start() -> Option<Mutex<ChildStdin>> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.arg(VERB).env_clear().current_dir("/").process_group(0);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    child.stdin.map(Mutex::new)
}

/// The guard's side; returns the exit code.
pub fn run() -> u8 {
    let mut groups = BTreeSet::new();
    let mut input = std::io::stdin().lock();
    let mut message = [0; 5];
    while input.read_exact(&mut message).is_ok() {
        let [word, a, b, c, d] = message;
        let group = i32::from_le_bytes([a, b, c, d]);
        if word == b'+' {
            groups.insert(group)
        } else {
            groups.remove(&group)
        };
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    0
}
