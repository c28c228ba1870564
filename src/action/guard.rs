//! Ends the actions of a build that was killed.
//!
//! A killed build cannot end its actions, and a death signal reaches only the first process of each: the programs that
//! one started would go on writing. So a build that runs anything starts this program once more, as its guard, and tells
//! it over a pipe which process groups run. When the build dies, however it dies, the kernel closes the pipe, and the
//! guard ends what still runs. It has a process group of its own, so what is sent to the build's does not reach it.
//!
//! The guard's file is locked (`flock`) until it has ended: whoever takes over what a dead build had waits for that.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process, test_kill_process_group};

use crate::util::fs;

/// The hidden verb that makes this program a guard.
pub const VERB: &str = "__guard";

/// How long killed processes are waited for; one that hangs in the kernel is not.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether they are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// One for the process; none where it could not be started: then the death signal must do.
static GUARD: OnceLock<Option<Guard>> = OnceLock::new();

struct Guard {
    to: Mutex<ChildStdin>,
    file: PathBuf,
}

/// To be called before the first action: starts this process's guard, with its file in `dir`; gives that file.
pub fn start(dir: &Path) -> Option<&'static Path> {
    GUARD.get_or_init(|| begin(dir)).as_ref().map(|guard| guard.file.as_path())
}

/// Waits for the guards of dead builds that have their files in `dir`, and takes those files away.
pub fn wait_for_dead(dir: &Path) -> Result<(), fs::FsError> {
    let is_alive = |file: &Path| {
        let build = file.file_name().and_then(|name| name.to_str()?.parse().ok()).and_then(Pid::from_raw);
        build.is_some_and(|build| test_kill_process(build).is_ok())
    };
    for file in fs::list(dir)?.iter().filter(|file| !is_alive(file)) {
        fs::wait_unlocked(file);
        fs::remove_file(file)?;
    }
    Ok(())
}

/// From now on this group ends with this process.
pub(super) fn watch(group: Pid) {
    tell(b'+', group);
}

/// This group has ended.
pub(super) fn release(group: Pid) {
    tell(b'-', group);
}

fn tell(word: u8, group: Pid) {
    if let Some(Some(guard)) = GUARD.get() {
        let [a, b, c, d] = group.as_raw_nonzero().get().to_le_bytes();
        // One write: whole or not at all. A guard that was killed cannot be helped.
        let _ = guard.to.lock().expect("no panic holds this").write_all(&[word, a, b, c, d]);
    }
}

fn begin(dir: &Path) -> Option<Guard> {
    let path = dir.join(std::process::id().to_string());
    let file: File = fs::create(&path).ok()?;
    file.try_lock().ok()?;
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.arg(VERB).arg(&path).env_clear().current_dir("/").process_group(0);
    // The lock goes with its standard output.
    let child = command.stdin(Stdio::piped()).stdout(file).stderr(Stdio::null()).spawn().ok()?;
    Some(Guard { to: Mutex::new(child.stdin?), file: path })
}

/// The guard's side; returns the exit code.
pub fn run(file: Option<&Path>) -> u8 {
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
    let groups: Vec<Pid> = groups.into_iter().filter_map(Pid::from_raw).collect();
    for group in &groups {
        let _ = kill_process_group(*group, Signal::KILL);
    }
    let begin = Instant::now();
    while groups.iter().any(|group| test_kill_process_group(*group).is_ok()) && begin.elapsed() < PATIENCE {
        std::thread::sleep(LOOK_AGAIN);
    }
    if let Some(file) = file {
        let _ = fs::remove_file(file);
    }
    0
}
