//! One target's run: a scratch directory, its inputs, a child process, what it made.
//!
//! Every action runs in a child: a kind's own program, or this one again with a hidden verb and the job on its standard
//! input. So peak memory and CPU time are the action's own, a crash takes one target and not the build, and cancelling
//! is a signal to a process group. The only module that starts processes; `spawner` says how.

mod again;
mod child;
mod here;
pub mod interpreter;
mod launch;
mod limits;
mod memory;
mod opened;
pub mod program;
mod sandbox;
mod spawner;
pub mod timed;
mod undeclared;
pub mod worker;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

pub use here::{become_program, run_here};
pub use opened::Opened;
pub use sandbox::is_open;

use crate::backend::Choice;
use crate::event::ActionEvent;
use crate::failure::Failure;
use crate::kind::{self, How, Kind, Pool};
use crate::recipe::decl::Decl;
use crate::recipe::terms::{Limit, Limits, Terms};
use crate::util::fs;

use sandbox::Rules;
use spawner::{Ender, Handles, Request, Running, Spawner};

/// The hidden verb that makes this program an action.
const VERB: &str = "__action";

/// Runs this program as what a hidden verb says; returns the exit code. None where there is none.
pub fn run_hidden(mut args: impl Iterator<Item = OsString>) -> Option<u8> {
    match args.next()?.to_str()? {
        VERB => Some(child::run()),
        spawner::VERB => Some(spawner::serve(Path::new(&args.next()?))),
        worker::VERB => Some(worker::run()),
        _ => None,
    }
}

/// Whether the system holds commands to what they declare.
pub fn is_held() -> bool {
    sandbox::is_there()
}

/// What holds the programs of a kind to what their targets declare, where it is wanted; none for those whose work is
/// effai's own.
pub fn held_by(kind: &dyn Kind, is_wanted: bool) -> Option<&'static str> {
    match kind.how() {
        How::Inside(_) => None,
        How::Program(_) if !is_wanted => Some("off"),
        How::Program(_) if !is_held() => Some("nothing"),
        How::Program(_) => Some(sandbox::NAME),
    }
}

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
    /// What computes.
    pub backend: Choice,
    /// Its program is held to what its target declares.
    pub is_sandboxed: bool,
    /// A directory of its key that outlives it until it has ended well.
    pub checkpoint: Option<PathBuf>,
    /// Where to write which files its program opens; it may then read everything.
    pub watched: Option<PathBuf>,
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
    /// It failed, and what it said names files it was not given.
    Undeclared {
        /// How it failed.
        failure: Failure,
        /// What its declaration may lack: `input "data/x.csv"`.
        lines: Vec<String>,
    },
    /// It was stopped on request.
    Cancelled,
}

/// Actions that are to end when the build is cancelled.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    running: Arc<Mutex<BTreeMap<u64, Ending>>>,
    told: Arc<Condvar>,
    next: Arc<AtomicU64>,
}

impl Cancel {
    /// Asks every running action to end, and none to start.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        self.running.lock().expect("no panic holds this").values().for_each(Ending::ask);
        self.told.notify_all();
    }

    /// Whether it was asked.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits so long, or until it is asked; says whether it was.
    fn wait(&self, span: Duration) -> bool {
        let running = self.running.lock().expect("no panic holds this");
        drop(self.told.wait_timeout_while(running, span, |_| !self.is_asked()));
        self.is_asked()
    }

    fn add(&self, ending: Ending) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut running = self.running.lock().expect("no panic holds this");
        // Asked between the action's start and this: nobody else tells it.
        if self.is_asked() {
            ending.ask();
        }
        running.insert(number, ending);
        number
    }

    fn remove(&self, number: u64) {
        self.running.lock().expect("no panic holds this").remove(&number);
    }
}

/// Something that runs and can be asked to end.
#[derive(Debug)]
enum Ending {
    Action(Ender),
    /// A process group.
    Group(Pid),
}

impl Ending {
    fn ask(&self) {
        match self {
            Ending::Action(ender) => ender.end(),
            Ending::Group(group) => drop(kill_process_group(*group, Signal::TERM)),
        }
    }
}

/// Runs jobs. The engine's own way is [`Processes`]; its tests have a quicker one.
pub trait Runner: Send + Sync {
    /// A build is about to run its first job. All that is started keeps a shared lock on the file `alive`, until it has
    /// ended, whatever becomes of the build.
    fn begin(&self, _alive: &Path) {}

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
#[derive(Debug, Default)]
pub struct Processes {
    /// The process that starts them, and where it says that it lives.
    spawner: Mutex<Option<Arc<Spawner>>>,
    alive: OnceLock<PathBuf>,
    tools: launch::Tools,
}

impl Runner for Processes {
    fn begin(&self, alive: &Path) {
        let _ = self.alive.set(alive.to_owned());
        // Where it cannot be started, the first job says why.
        let _ = self.spawner();
    }

    fn run(
        &self,
        job: &Job,
        pool: Pool,
        log: &Path,
        cancel: &Cancel,
        said: &mut dyn FnMut(ActionEvent),
    ) -> (Ended, Cost) {
        let begin = Instant::now();
        let terms = Terms::of(&job.decl.fields);
        let mut attempt = Attempt { job, pool, log, cancel, limits: terms.at_most, again: 0, cost: Cost::default() };
        let ended = loop {
            let mut ran = None;
            let ended = self.attempt(&mut attempt, &mut ran, said).unwrap_or_else(Ended::Failed);
            let retry = terms.retry.as_ref().filter(|retry| attempt.again < retry.times);
            let Some(retry) = retry.filter(|retry| again::is_passing(retry, &ended, ran.as_ref(), log)) else {
                break ended;
            };
            attempt.again += 1;
            let wait = retry.wait(attempt.again);
            said(again::told(&ended, attempt.again, retry.times, wait));
            if cancel.wait(wait) {
                break Ended::Cancelled;
            }
            if let Err(error) = again::clear(job) {
                break Ended::Failed(error.into());
            }
        };
        let mut cost = attempt.cost;
        cost.wall_ms = begin.elapsed().as_millis() as u64;
        (ended, cost)
    }
}

/// A job that is being run, for the first time or again.
struct Attempt<'a> {
    job: &'a Job,
    pool: Pool,
    log: &'a Path,
    cancel: &'a Cancel,
    limits: Limits,
    /// How often it ran before.
    again: u32,
    cost: Cost,
}

impl Attempt<'_> {
    /// The directory that is the action's own.
    fn own(&self) -> &Path {
        self.job.scratch.parent().unwrap_or(&self.job.scratch)
    }

    /// The log; where it runs again, after what is in it.
    fn log(&self) -> Result<File, Failure> {
        use std::io::Write;
        if self.again == 0 {
            return Ok(fs::create(self.log)?);
        }
        let mut log = fs::at("open", self.log, File::options().append(true).create(true).open(self.log))?;
        fs::at("write", self.log, write!(log, "\nagain, {}:\n", self.again))?;
        Ok(log)
    }
}

/// A program that ended, and the failure it told of itself.
struct Ran {
    status: ExitStatus,
    told: Option<Failure>,
    /// 0 where it is not known.
    peak_bytes: u64,
    /// The limit it was ended for.
    stopped: Option<Limit>,
}

/// What cannot be started.
enum NotStarted {
    NotFound,
    Failed(Failure),
}

impl Processes {
    /// Runs a job once; how its program ended goes to `ran`.
    fn attempt(
        &self,
        attempt: &mut Attempt<'_>,
        ran: &mut Option<Ran>,
        said: &mut dyn FnMut(ActionEvent),
    ) -> Result<Ended, Failure> {
        let kind = kind::find(&attempt.job.decl.kind).expect("the engine knows the same kinds");
        match kind.how() {
            How::Inside(_) => self.inside(attempt, ran, said),
            How::Program(kind) => self.program(kind, attempt, ran, said),
        }
    }

    /// A kind's own code, in this program again.
    fn inside(
        &self,
        attempt: &mut Attempt<'_>,
        ran: &mut Option<Ran>,
        said: &mut dyn FnMut(ActionEvent),
    ) -> Result<Ended, Failure> {
        let job = attempt.job;
        let me = std::env::current_exe().map_err(|e| Failure::environment(format!("cannot find this program: {e}")))?;
        let stdin = job.scratch.join("job.json");
        fs::write(&stdin, &serde_json::to_vec(job).expect("a job is plain data"))?;
        // What waits for the network needs the user's own settings: indexes, proxies, certificates.
        let clear = attempt.pool != Pool::Network;
        let mut vars = Vec::new();
        if clear {
            let home = job.scratch.join("home");
            fs::create_dir_all(&home)?;
            vars = surroundings(&home, &job.scratch);
        }
        vars.extend(passed(job));
        vars.extend(crate::backend::CHILD_ENVIRONMENT.iter().map(|(name, value)| (name.into(), value.into())));
        vars.push(("RAYON_NUM_THREADS".into(), job.threads.to_string().into()));
        let request = Request {
            program: me.clone().into(),
            name: me.into(),
            args: vec![VERB.into()],
            clear,
            vars,
            dir: job.scratch.clone().into(),
            rules: None,
            tmp: None,
            limits: attempt.limits,
            own: attempt.own().into(),
        };
        match self.start(request, attempt, Some(&stdin), said) {
            Ok(ended) => {
                let ended = ran.insert(ended);
                Ok(conclude(ended, attempt))
            }
            Err(NotStarted::Failed(failure)) => Err(failure),
            Err(NotStarted::NotFound) => Err(Failure::environment("effai's own program file is gone")
                .help("it was moved or removed while it ran: run the command again")),
        }
    }

    /// The process that starts actions; another one where that was lost.
    fn spawner(&self) -> Result<Arc<Spawner>, Failure> {
        let mut spawner = self.spawner.lock().expect("no panic holds this");
        if let Some(spawner) = &*spawner {
            return Ok(Arc::clone(spawner));
        }
        let started = Arc::new(Spawner::start(self.alive.get().expect("a build begins with `begin`"))?);
        Ok(Arc::clone(spawner.insert(started)))
    }

    /// Begins a program. Something may have ended the process that starts them, an action itself or a system without memory:
    /// what ran then is lost, and what comes after has another one.
    fn begun(&self, request: &Request, handles: &Handles) -> Result<Running, Failure> {
        for _ in 0..2 {
            let own = self.spawner()?;
            if let Some(running) = own.run(request, handles)? {
                return Ok(running);
            }
            let mut spawner = self.spawner.lock().expect("no panic holds this");
            if spawner.as_ref().is_some_and(|known| Arc::ptr_eq(known, &own)) {
                *spawner = None;
            }
        }
        Err(Failure::environment("the process that starts actions is ended as often as it is started")
            .help("look for what ends it: the system's log says which processes it killed for want of memory"))
    }

    /// Starts a program, passes its events on, waits for its end.
    fn start(
        &self,
        mut request: Request,
        attempt: &mut Attempt<'_>,
        stdin: Option<&Path>,
        said: &mut dyn FnMut(ActionEvent),
    ) -> Result<Ran, NotStarted> {
        let (reader, writer) = std::io::pipe()
            .map_err(|e| NotStarted::Failed(Failure::environment(format!("cannot make a pipe: {e}"))))?;
        let open = |path| fs::open(path).map_err(|e| NotStarted::Failed(e.into()));
        let handles = Handles {
            log: attempt.log().map_err(NotStarted::Failed)?.into(),
            events: writer.into(),
            stdin: open(stdin.unwrap_or(Path::new("/dev/null")))?.into(),
        };
        request.vars.push(("EFFAI_EVENTS".into(), spawner::EVENTS_FD.to_string().into()));
        // As a shell does; and what it starts is known by it.
        request.vars.push(("PWD".into(), request.dir.clone()));
        let running = self.begun(&request, &handles).map_err(NotStarted::Failed)?;
        // The action has the only other end of what it tells.
        drop(handles);
        let number = running.ender().map(|ender| attempt.cancel.add(Ending::Action(ender)));
        let told = listen(reader.into(), said);
        let ended = running.wait();
        number.inspect(|number| attempt.cancel.remove(*number));
        match ended.map_err(NotStarted::Failed)? {
            spawner::Ended::Ran { status, cpu, peak_bytes, stopped } => {
                attempt.cost.cpu_ms += cpu.as_millis() as u64;
                attempt.cost.peak_bytes = peak_bytes.max(attempt.cost.peak_bytes);
                let status = std::os::unix::process::ExitStatusExt::from_raw(status);
                Ok(Ran { status, told, peak_bytes, stopped })
            }
            spawner::Ended::NotFound => Err(NotStarted::NotFound),
            spawner::Ended::Refused(why) => {
                let program = Path::new(&request.program).display();
                Err(NotStarted::Failed(Failure::environment(format!("cannot start `{program}`: {why}"))))
            }
        }
    }
}

/// The variables of an action that begins with none.
fn surroundings(home: &Path, tmp: &Path) -> Vec<(OsString, OsString)> {
    vec![
        ("PATH".into(), crate::env::path()),
        ("HOME".into(), home.into()),
        ("TMPDIR".into(), tmp.into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("TZ".into(), "UTC".into()),
    ]
}

/// What the recipe has handed through.
fn passed(job: &Job) -> impl Iterator<Item = (OsString, OsString)> {
    job.decl.variables().into_iter().filter_map(|name| Some((OsString::from(&name), crate::env::passed(&name)?)))
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

fn conclude(ran: &Ran, attempt: &Attempt<'_>) -> Ended {
    use std::os::unix::process::ExitStatusExt;
    let (status, job) = (ran.status, attempt.job);
    if status.success() && ran.stopped.is_none() {
        return Ended::Done;
    }
    if attempt.cancel.is_asked() {
        return Ended::Cancelled;
    }
    let words = String::from_utf8_lossy(&fs::read(attempt.log).unwrap_or_default()).into_owned();
    if let Some(failure) = limits::reached(ran, &attempt.limits, &words) {
        return Ended::Failed(failure);
    }
    let kind = kind::find(&job.decl.kind).expect("the engine knows the same kinds");
    if let Some(failure) = memory::ran_out(ran, &words, kind.weighs(&job.decl)) {
        return Ended::Failed(failure);
    }
    if let Some(failure) = &ran.told {
        return Ended::Failed(by_names(failure.clone(), job));
    }
    let last = words.trim_end().lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    let failure = match status.signal() {
        Some(signal) => Failure::target(format!("the action ended on signal {signal}{last}")),
        None => Failure::target(format!("the action ended with code {}{last}", status.code().unwrap_or(-1))),
    };
    Ended::Failed(failure)
}

/// With the labels of targets where a message has the directories their artifacts lie in for this action alone.
fn by_names(mut failure: Failure, job: &Job) -> Failure {
    for (label, dir) in &job.inputs {
        failure.message = failure.message.replace(&*dir.to_string_lossy(), label);
    }
    failure
}
