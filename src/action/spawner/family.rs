//! The processes of an action: its first one, what that started, and what lost its parent and came to the spawner.
//!
//! A process group is not all of an action: a daemon leaves it by `setsid`. On Linux the spawner adopts what loses its
//! parent (`PR_SET_CHILD_SUBREAPER`), so nothing that an action started gets away: it is a child of one of the action's
//! processes or of the spawner itself. Whose an adopted one is, its variables tell: they name the action's directory. One
//! that was started without them is ended when no other action runs. Elsewhere there is the group alone.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process_group, waitpgid};

/// How long killed processes are waited for; one that hangs in the kernel is not.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether they are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// One action's processes.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Its first process, which leads its group.
    pub(super) first: Pid,
    /// The action's directory, which the variables of all of them name.
    mark: Vec<u8>,
}

/// Makes this process the parent of all whose own is gone.
pub(super) fn adopt() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

impl Family {
    pub(super) fn new(first: Pid, mark: &std::ffi::OsStr) -> Self {
        // With the slash after it: `1` is not `10`.
        Self { first, mark: [mark.as_encoded_bytes(), b"/"].concat() }
    }

    /// Asks all of its group to end.
    pub(super) fn ask(&self) {
        let _ = kill_process_group(self.first, Signal::TERM);
    }

    /// Kills all of it that can be found; the first process is then still to be waited for.
    pub(super) fn kill(&self) {
        let below = proc::below(self.first);
        let _ = kill_process_group(self.first, Signal::KILL);
        below.into_iter().for_each(kill);
    }

    /// Kills what is left of it after its first process was waited for, and waits until it is gone. `firsts` are the first
    /// processes of the actions that run, its own among them.
    pub(super) fn end(&self, firsts: &[Pid]) {
        let begin = Instant::now();
        loop {
            let group = kill_process_group(self.first, Signal::KILL).is_ok();
            let is_alone = firsts.iter().all(|first| *first == self.first);
            let adopted = orphans(firsts, |pid| is_alone || proc::names(pid, &self.mark));
            if !(group || adopted) || begin.elapsed() > PATIENCE {
                return;
            }
            // Of the group, what the spawner has adopted.
            while waitpgid(self.first, WaitOptions::NOHANG).is_ok_and(|waited| waited.is_some()) {}
            if adopted || test_kill_process_group(self.first).is_ok() {
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }

    /// The memory that all its processes hold together, in bytes, if that is more than `limit`.
    pub(super) fn holds_more(&self, limit: u64, firsts: &[Pid]) -> bool {
        let mut all = proc::below(self.first);
        let adopted = proc::children_of_this().into_iter().filter(|pid| !firsts.contains(pid));
        all.extend(adopted.filter(|pid| proc::names(*pid, &self.mark)).flat_map(proc::below));
        // What several of them share counts in each: only beyond the limit it is looked at more closely, which is slow.
        all.iter().map(|pid| proc::resident(*pid)).sum::<u64>() > limit
            && all.iter().map(|pid| proc::share(*pid)).sum::<u64>() > limit
    }
}

/// Kills all that this process has for children, and theirs, until there are none.
pub(super) fn end_all() {
    let begin = Instant::now();
    while orphans(&[], |_| true) && begin.elapsed() < PATIENCE {
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Kills the adopted processes that are meant, and all below them. Says whether there were any.
fn orphans(firsts: &[Pid], is_meant: impl Fn(Pid) -> bool) -> bool {
    let mut any = false;
    for pid in proc::children_of_this().into_iter().filter(|pid| !firsts.contains(pid)) {
        let has_ended = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).is_ok_and(|waited| waited.is_some());
        if !has_ended && is_meant(pid) {
            any = true;
            proc::below(pid).into_iter().for_each(kill);
        }
    }
    any
}

fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// What the system tells of processes.
#[cfg(target_os = "linux")]
mod proc {
    use std::path::PathBuf;

    use rustix::process::Pid;

    use crate::util::fs;

    fn path(pid: Pid, name: &str) -> PathBuf {
        format!("/proc/{pid}/{name}").into()
    }

    fn pids(text: &str) -> Vec<Pid> {
        text.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
    }

    /// The children of this process, which has one thread.
    pub(super) fn children_of_this() -> Vec<Pid> {
        pids(&fs::read_text("/proc/thread-self/children".as_ref()).unwrap_or_default())
    }

    /// A process and all below it, as they are now: parents before children.
    pub(super) fn below(pid: Pid) -> Vec<Pid> {
        let mut all = vec![pid];
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            for thread in fs::list(&path(pid, "task")).unwrap_or_default() {
                all.extend(pids(&fs::read_text(&thread.join("children")).unwrap_or_default()));
            }
            at += 1;
        }
        all
    }

    /// Whether the variables it was started with have these bytes in them.
    pub(super) fn names(pid: Pid, mark: &[u8]) -> bool {
        let variables = fs::read(&path(pid, "environ")).unwrap_or_default();
        variables.windows(mark.len()).any(|window| window == mark)
    }

    /// Bytes of memory, those shared with others among them.
    pub(super) fn resident(pid: Pid) -> u64 {
        kibibytes(pid, "status", "VmRSS:").unwrap_or(0) * 1024
    }

    /// Bytes of memory, those shared with others divided among them.
    pub(super) fn share(pid: Pid) -> u64 {
        // Where the kernel does not say, the larger number has to do.
        kibibytes(pid, "smaps_rollup", "Pss:").map_or_else(|| resident(pid), |n| n * 1024)
    }

    fn kibibytes(pid: Pid, file: &str, line: &str) -> Option<u64> {
        let text = fs::read_text(&path(pid, file)).ok()?;
        text.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse().ok())
    }
}

#[cfg(not(target_os = "linux"))]
mod proc {
    use rustix::process::Pid;

    pub(super) fn children_of_this() -> Vec<Pid> {
        Vec::new()
    }

    pub(super) fn below(pid: Pid) -> Vec<Pid> {
        vec![pid]
    }

    pub(super) fn names(_pid: Pid, _mark: &[u8]) -> bool {
        false
    }

    pub(super) fn resident(pid: Pid) -> u64 {
        share(pid)
    }

    /// Bytes of memory, as `ps` has them.
    pub(super) fn share(pid: Pid) -> u64 {
        let said = crate::action::program::Program::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).ask();
        said.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}
