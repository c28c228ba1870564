//! One target's run: a scratch directory, its inputs, a child process, what it made.
//!
//! Every action runs in a child: this program again with a hidden verb, the job on its standard input.
//! So peak memory and CPU time are the action's own, a crash takes one target and not the build, and
//! cancelling is a signal to a process group. The only module that starts processes.

mod child;
mod here;
pub mod program;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use wait4::Wait4;

pub use child::run as run_child;
pub use here::run_here;

use crate::event::ActionEvent;
use crate::failure::Failure;
use crate::kind::Pool;
use crate::recipe::decl::Decl;
use crate::util::fs;

/// The hidden verb that makes this program an action.
pub const VERB: &str = "__action";

/// The descriptor an action's events go to.
const EVENTS_FD: i32 = 3;

/// How long an action may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);

/// What an action is told: all it gets to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The declaration.
    pub decl: Decl,
    /// Target label -> directory with its artifact.
    pub inputs: BTreeMap<String, PathBuf>,
    /// The project's root.
    pub project: PathBuf,
    /// The directory to fill.
    pub out: PathBuf,
    /// A directory for what is not kept.
    pub scratch: PathBuf,
    /// Threads to use.
    pub threads: usize,
}

/// What an action's run cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Wall time.
    pub wall_ms: u64,
    /// User and system time.
    pub cpu_ms: u64,
    /// Peak resident memory.
    pub peak_bytes: u64,
}

/// How an action ended.
#[derive(Debug)]
pub enum Ended {
    /// It filled its directory.
    Done,
    /// It failed.
    Failed(Failure),
    /// It was stopped on request.
    Cancelled,
}

/// Process groups that are to end when the build is cancelled.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    groups: Arc<Mutex<Vec<Pid>>>,
}

impl Cancel {
    /// Asks every running action to end, and none to start.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        for group in self.groups.lock().expect("no panic holds this").iter() {
            let _ = kill_process_group(*group, Signal::TERM);
        }
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    fn add(&self, group: Pid) {
        self.groups.lock().expect("no panic holds this").push(group);
        if self.is_asked() {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }

    fn remove(&self, group: Pid) {
        self.groups.lock().expect("no panic holds this").retain(|g| *g != group);
    }
}

/// Runs jobs. The engine's own way is [`Processes`]; its tests have a quicker one.
pub trait Runner: Send + Sync {
    /// Fills `job.out`; events go to `said`, output to `log`.
    fn run(
        &self,
        job: &Job,
        pool: Pool,
        log: &Path,
        cancel: &Cancel,
        said: &mut dyn FnMut(ActionEvent),
    ) -> (Ended, Cost);
}

/// Each job in a child process.
#[derive(Debug)]
pub struct Processes;

impl Runner for Processes {
    fn run(
        &self,
        job: &Job,
        pool: Pool,
        log: &Path,
        cancel: &Cancel,
        said: &mut dyn FnMut(ActionEvent),
    ) -> (Ended, Cost) {
        run(job, pool, log, cancel, said)
    }
}

/// Runs a job in a child process; its events go to `said`, its output to `log`.
fn run(job: &Job, pool: Pool, log: &Path, cancel: &Cancel, said: &mut dyn FnMut(ActionEvent)) -> (Ended, Cost) {
    let begin = Instant::now();
    let mut cost = Cost::default();
    let ended = match start(job, pool, log) {
        Err(failure) => Ended::Failed(failure),
        Ok((child, events)) => {
            let group = Pid::from_raw(child.id() as i32).expect("a process id is not zero");
            cancel.add(group);
            let watchdog = Watchdog::start(cancel.clone(), group);
            let failure = listen(events, said);
            let waited = child.wait4();
            watchdog.stop();
            cancel.remove(group);
            // What the action started and left behind ends with it.
            let _ = kill_process_group(group, Signal::KILL);
            match waited {
                Err(error) => Ended::Failed(Failure::environment(format!("cannot wait for the action: {error}"))),
                Ok(waited) => {
                    let usage = waited.rusage;
                    cost.cpu_ms = (usage.utime + usage.stime).as_millis() as u64;
                    cost.peak_bytes = usage.maxrss;
                    conclude(waited.status, failure, cancel, log)
                }
            }
        }
    };
    cost.wall_ms = begin.elapsed().as_millis() as u64;
    (ended, cost)
}

fn start(job: &Job, pool: Pool, log: &Path) -> Result<(std::process::Child, OwnedFd), Failure> {
    let me = std::env::current_exe().map_err(|e| Failure::environment(format!("cannot find this program: {e}")))?;
    let log_file = fs::create(log)?;
    let errors = fs::at("open again", log, log_file.try_clone())?;
    let (reader, writer) = std::io::pipe().map_err(|e| Failure::environment(format!("cannot make a pipe: {e}")))?;
    let mut command = Command::new(&me);
    command.arg(VERB).stdin(Stdio::piped()).stdout(log_file).stderr(errors).process_group(0).current_dir(&job.scratch);
    // What waits for the network needs the user's own settings: indexes, proxies, certificates.
    if pool != Pool::Network {
        command.env_clear();
        let home = job.scratch.join("home");
        fs::create_dir_all(&home)?;
        command.env("PATH", crate::env::path()).env("HOME", &home).env("TMPDIR", &job.scratch);
        command.env("LANG", "C.UTF-8").env("TZ", "UTC");
    }
    command.envs(crate::backend::CHILD_ENVIRONMENT.iter().copied());
    command.env("EFFAI_EVENTS", EVENTS_FD.to_string()).env("RAYON_NUM_THREADS", job.threads.to_string());
    command
        .fd_mappings(vec![FdMapping { parent_fd: writer.into(), child_fd: EVENTS_FD }])
        .expect("one descriptor cannot collide");
    let mut child = command.spawn().map_err(|e| Failure::environment(format!("cannot start an action: {e}")))?;
    // Dropped with `command` at the end of this function is our copy of the pipe's writing end.
    let mut stdin = child.stdin.take().expect("piped");
    let text = serde_json::to_vec(job).expect("a job is plain data");
    // A child that died already says why through its status.
    let _ = stdin.write_all(&text);
    Ok((child, reader.into()))
}

/// Passes events on until the child closes its end; returns the failure it told, if any.
fn listen(events: OwnedFd, said: &mut dyn FnMut(ActionEvent)) -> Option<Failure> {
    let mut failure = None;
    for line in BufReader::new(File::from(events)).lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(ActionEvent::Failed(told)) => failure = Some(told),
            Ok(event) => said(event),
            Err(error) => said(ActionEvent::Warning { text: format!("not an event: {error}: {line}"), help: None }),
        }
    }
    failure
}

fn conclude(status: std::process::ExitStatus, told: Option<Failure>, cancel: &Cancel, log: &Path) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    if status.success() {
        return Ended::Done;
    }
    if cancel.is_asked() {
        return Ended::Cancelled;
    }
    if let Some(failure) = told {
        return Ended::Failed(failure);
    }
    let last = fs::read_text(log).unwrap_or_default();
    let last = last.trim_end().lines().last().unwrap_or_default();
    let failure = match status.signal() {
        Some(9) => Failure::environment("the action was killed (signal 9), as the system does when memory runs out")
            .help("free memory, or make it smaller: a smaller batch, fewer jobs with -j"),
        Some(signal) => Failure::target(format!("the action ended on signal {signal}: {last}")),
        None => Failure::target(format!("the action ended with code {}: {last}", status.code().unwrap_or(-1))),
    };
    Ended::Failed(failure)
}

/// Ends a cancelled action that does not end by itself.
struct Watchdog {
    stop: Arc<(Mutex<bool>, std::sync::Condvar)>,
    thread: std::thread::JoinHandle<()>,
}

impl Watchdog {
    fn start(cancel: Cancel, group: Pid) -> Self {
        let stop = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
        let shared = stop.clone();
        let thread = std::thread::spawn(move || {
            let (stopped, wake) = &*shared;
            let mut asked_since: Option<Instant> = None;
            let mut guard = stopped.lock().expect("no panic holds this");
            while !*guard {
                guard = wake.wait_timeout(guard, Duration::from_millis(200)).expect("no panic holds this").0;
                if cancel.is_asked() && asked_since.get_or_insert_with(Instant::now).elapsed() > GRACE {
                    let _ = kill_process_group(group, Signal::KILL);
                }
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        *self.stop.0.lock().expect("no panic holds this") = true;
        self.stop.1.notify_all();
        let _ = self.thread.join();
    }
}
