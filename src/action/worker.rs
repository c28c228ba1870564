//! Processes of an action's own that are this program again: each makes something ready, and does work of it whenever it is
//! asked. So what one holds in memory is apart from what the others hold, and they can take turns.
//!
//! Both sides speak in lines of JSON over the process's standard input and output. Before it begins it gives up, for good, the
//! right to read more than its action's inputs. It ends when its standard input does: then nobody is left to ask.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Lines, StdinLock, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wait4::Wait4;

use super::sandbox::{Rules, Sandbox};
use super::{Ran, memory, surroundings};
use crate::failure::Failure;
use crate::kind::{self, ActionCx};
use crate::util::fs;

/// The hidden verb that makes this program such a process.
pub(super) const VERB: &str = "__worker";

/// The first line that it is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    kind: String,
    task: Value,
    threads: usize,
    rules: Option<Rules>,
}

/// A line of its answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Is(Value),
    Failed(Failure),
}

/// How such processes of one action are started.
#[derive(Debug)]
pub struct Workers {
    kind: String,
    threads: usize,
    rules: Option<Rules>,
    program: PathBuf,
    vars: Vec<(OsString, OsString)>,
    dir: PathBuf,
    words: PathBuf,
    weighs: &'static [&'static str],
    started: Cell<usize>,
}

/// One of them.
#[derive(Debug)]
pub struct Worker {
    /// None once it was waited for.
    child: Option<Child>,
    asks: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    words: PathBuf,
    weighs: &'static [&'static str],
}

impl Workers {
    /// With the action's inputs, threads and surroundings.
    pub fn new(cx: &ActionCx<'_>) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|e| Failure::environment(format!("cannot find this program: {e}")))?;
        let dir = cx.scratch().to_owned();
        let home = dir.parent().unwrap_or(&dir).join("home");
        fs::create_dir_all(&home)?;
        let mut vars = surroundings(&home, &home);
        vars.extend(crate::backend::CHILD_ENVIRONMENT.iter().map(|(name, value)| (name.into(), value.into())));
        vars.push(("RAYON_NUM_THREADS".into(), cx.threads.to_string().into()));
        let rules = cx.is_held().then(|| Rules {
            reads: Vec::new(),
            inputs: cx.inputs.values().map(Into::into).collect(),
            // To forget its own peak of memory is its own affair.
            writes: vec![(&home).into(), crate::util::machine::FORGET_PEAK.into()],
            network: false,
        });
        Ok(Self {
            kind: cx.decl.kind.clone(),
            threads: cx.threads,
            rules,
            program,
            vars,
            words: home.with_file_name("words-of-workers"),
            dir,
            weighs: kind::of(cx.decl).weighs(cx.decl),
            started: Cell::new(0),
        })
    }

    /// Starts one with a task of the action's kind, and with these variables besides.
    pub fn start(&self, task: &impl Serialize, vars: &[(&str, &str)]) -> Result<Worker, Failure> {
        let number = self.started.replace(self.started.get() + 1);
        let words = self.words.with_extension(number.to_string());
        let cannot = |e: std::io::Error| Failure::environment(format!("cannot start this program again: {e}"));
        let mut child = Command::new(&self.program)
            .arg(VERB)
            .current_dir(&self.dir)
            .env_clear()
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .envs(vars.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(fs::create(&words)?))
            .spawn()
            .map_err(cannot)?;
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut worker = Worker { child: Some(child), asks, answers, words, weighs: self.weighs };
        let task = serde_json::to_value(task).expect("plain data");
        let order = Order { kind: self.kind.clone(), task, threads: self.threads, rules: self.rules.clone() };
        worker.tell(&serde_json::to_string(&order).expect("plain data"))?;
        Ok(worker)
    }
}

impl Worker {
    /// Asks for one of its works, and waits until it is done.
    pub fn ask<T: DeserializeOwned>(&mut self, work: usize) -> Result<T, Failure> {
        self.tell(&work.to_string())?;
        self.answer()
    }

    /// Waits for what it says next.
    pub fn answer<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(read) if read > 0 => {}
            _ => return Err(self.gone()),
        }
        let failed =
            |why: &dyn std::fmt::Display| Failure::target(format!("not an answer: {why}: {}", line.trim_end()));
        match serde_json::from_str(&line).map_err(|e| failed(&e))? {
            Answer::Is(value) => serde_json::from_value(value).map_err(|e| failed(&e)),
            Answer::Failed(failure) => Err(failure),
        }
    }

    fn tell(&mut self, line: &str) -> Result<(), Failure> {
        let told = self.asks.as_mut().map(|asks| writeln!(asks, "{line}").and_then(|()| asks.flush()));
        // What it said before it was gone says why.
        if matches!(told, Some(Ok(()))) { Ok(()) } else { self.answer::<Value>().and_then(|_| Err(self.gone())) }
    }

    /// Why it does not answer any more.
    fn gone(&mut self) -> Failure {
        self.asks = None;
        let ended = match self.child.take().map(Wait4::wait4) {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => return Failure::environment(format!("cannot wait for its process: {error}")),
            None => return Failure::target("its process has ended"),
        };
        let words = String::from_utf8_lossy(&fs::read(&self.words).unwrap_or_default()).into_owned();
        let (status, peak_bytes) = (ended.status, ended.rusage.maxrss);
        let ran = Ran { status, told: None, peak_bytes, stopped: None };
        memory::ran_out(&ran, &words, self.weighs).unwrap_or_else(|| {
            let last = words.trim_end().lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            match status.signal() {
                Some(signal) => Failure::target(format!("its process ended on signal {signal}{last}")),
                None => Failure::target(format!("its process ended with code {}{last}", status.code().unwrap_or(-1))),
            }
        })
    }
}

impl Drop for Worker {
    /// It ends, and is waited for: its CPU time is counted, and its memory is free for the next.
    fn drop(&mut self) {
        self.asks = None;
        let _ = self.child.take().map(Wait4::wait4);
        let _ = fs::remove_file(&self.words);
    }
}

/// What such a process is asked, and where it answers.
#[derive(Debug)]
pub struct Calls {
    asked: Lines<StdinLock<'static>>,
    answers: File,
}

impl Calls {
    /// Waits for the number of the next work; none when there is no more.
    pub fn next_work(&mut self) -> Option<usize> {
        self.asked.next()?.ok()?.trim().parse().ok()
    }

    /// Answers.
    pub fn answer(&mut self, is: &impl Serialize) {
        self.send(&Answer::Is(serde_json::to_value(is).expect("plain data")));
    }

    fn send(&mut self, answer: &Answer) {
        // Where nobody listens any more nobody asks any more, which ends it.
        let line = serde_json::to_string(answer).expect("plain data") + "\n";
        let _ = self.answers.write_all(line.as_bytes()).and_then(|()| self.answers.flush());
    }
}

/// Does what its first line says; returns the exit code.
pub(super) fn run() -> u8 {
    use std::os::fd::AsFd;
    let Ok(answers) = std::io::stdout().as_fd().try_clone_to_owned() else { return 3 };
    let mut calls = Calls { asked: std::io::stdin().lock().lines(), answers: answers.into() };
    let order = calls.asked.next().and_then(Result::ok).and_then(|line| serde_json::from_str(&line).ok());
    let Some(order) = order else {
        calls.send(&Answer::Failed(Failure::user("this verb is effai's own")));
        return 2;
    };
    match std::panic::catch_unwind(AssertUnwindSafe(|| serve(order, &mut calls))) {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            let code = failure.class.exit_code();
            calls.send(&Answer::Failed(failure));
            code
        }
        // What broke, and where, is on standard error: who asked reads that.
        Err(_) => 101,
    }
}

fn serve(Order { kind, task, threads, rules }: Order, calls: &mut Calls) -> Result<(), Failure> {
    let refused = |e: std::io::Error| Failure::environment(format!("this program cannot be held to its inputs: {e}"));
    let restriction = rules.map(|rules| Sandbox::default().restriction(&rules)).transpose();
    // Before there are other threads: each gives up its own rights.
    if let Some(restriction) = restriction.map_err(refused)?.flatten() {
        restriction.enforce().map_err(refused)?;
    }
    let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    threads.map_err(|e| Failure::environment(format!("cannot start threads: {e}")))?;
    let kind = kind::find(&kind).and_then(kind::Kind::serves).expect("the same program asks");
    kind.serve(task, calls)
}
