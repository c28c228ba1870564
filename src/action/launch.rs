//! Kinds whose work is one program: it is started directly, with nothing of ours in between.
//!
//! ```text
//! SCRATCH/work    where it runs: its files of the project, links to its inputs, what it makes
//! SCRATCH/home    $HOME and $TMPDIR
//! SCRATCH/out     what is kept of it
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::program::Program;
use super::spawner::Request;
use super::{
    Cancel, Cost, Ended, Job, NotStarted, Processes, Ran, Rules, by_names, conclude, passed, sandbox, surroundings,
    undeclared,
};
use crate::event::ActionEvent;
use crate::failure::Failure;
use crate::format::metrics::Metrics;
use crate::kind::{ActionCx, Launch, Pool};
use crate::util::fs;

/// Of what a failed program said, this much is repeated.
const TAIL_LINES: usize = 6;

/// What programs need of the machine; found out once a build.
#[derive(Debug, Default)]
pub(super) struct Tools {
    on_path: OnceLock<Vec<PathBuf>>,
    programs: Mutex<HashMap<OsString, Option<Found>>>,
    warned: OnceLock<()>,
}

/// A program that was looked for on the search path.
#[derive(Clone, Debug)]
struct Found {
    path: PathBuf,
    /// The directory its own files lie in, links followed.
    prefix: Option<PathBuf>,
}

impl Tools {
    /// Where a program of the search path is.
    fn path(&self, program: &OsStr) -> Option<OsString> {
        let programs = self.programs.lock().expect("no panic holds this");
        programs.get(program)?.as_ref().map(|found| found.path.clone().into())
    }

    /// What a program may read besides the system and its inputs.
    fn reads(&self, program: &OsStr, project: &Path) -> Vec<OsString> {
        let home = crate::env::home();
        let find = || sandbox::programs(&crate::env::path(), project, home.as_deref());
        let mut reads = self.on_path.get_or_init(find).clone();
        let mut programs = self.programs.lock().expect("no panic holds this");
        // A virtual environment's `python` is a link to one that brings its library elsewhere.
        let own = programs.entry(program.to_owned()).or_insert_with(|| {
            let path = crate::env::find_program(program.to_str().filter(|name| !name.contains('/'))?)?;
            let real = path.canonicalize().ok();
            let prefix = real.and_then(|real| Some(sandbox::prefix(real.parent()?, project, home.as_deref())));
            Some(Found { path, prefix: prefix.filter(|prefix| !sandbox::is_open(prefix)) })
        });
        reads.extend(own.iter().filter_map(|found| found.prefix.clone()));
        reads.into_iter().map(Into::into).collect()
    }
}

impl Processes {
    #[expect(clippy::too_many_arguments, reason = "what a run has, and what it is")]
    pub(super) fn program(
        &self,
        kind: &dyn Launch,
        job: &Job,
        pool: Pool,
        log: &Path,
        cancel: &Cancel,
        said: &mut dyn FnMut(ActionEvent),
        cost: &mut Cost,
    ) -> Result<Ended, Failure> {
        let is_held = sandbox::is_there();
        if !is_held && self.tools.warned.set(()).is_ok() {
            let text = "nothing checks what commands read: this system has no Landlock (Linux 5.13)".into();
            let help = Some("declare every file a command reads: an edit of another one goes unnoticed".into());
            said(ActionEvent::Warning { text, help });
        }
        let told = RefCell::new(Metrics::default());
        let mut hear = |event: ActionEvent| {
            if let ActionEvent::Metric { name, step, value } = &event {
                told.borrow_mut().add(name, *step, *value);
            }
            said(event);
        };
        let mut cx = ActionCx {
            decl: &job.decl,
            threads: job.threads,
            project: job.project.clone(),
            inputs: job.inputs.clone(),
            out: job.out.clone(),
            scratch: job.scratch.clone(),
            is_held,
            backend: job.backend,
            events: &mut hear,
        };
        let program = kind.prepare(&mut cx)?;
        let request = self.request(&program, job, pool)?;
        let ran = match self.start(request, log, None, cancel, &mut *cx.events, cost) {
            Ok(ran) => ran,
            Err(NotStarted::Failed(failure)) => return Err(failure),
            Err(NotStarted::NotFound) => return Err(program.not_installed()),
        };
        let ended = kind.ended(&mut cx);
        if ran.status.success() {
            let told = told.take();
            return ended.and_then(|()| kind.conclude(&mut cx, &told)).map(|()| Ended::Done);
        }
        Ok(failed(&ran, &program, job, cancel, log))
    }

    fn request(&self, program: &Program, job: &Job, pool: Pool) -> Result<Request, Failure> {
        let beside = |name| job.scratch.parent().unwrap_or(&job.scratch).join(name);
        let (home, dir) = (beside("home"), &job.scratch);
        fs::create_dir_all(&home)?;
        // What waits for the network needs the user's own settings: indexes, proxies, certificates.
        let clear = pool != Pool::Network;
        let mut vars = if clear { surroundings(&home, &home) } else { Vec::new() };
        vars.extend(passed(job));
        vars.extend(program.vars.iter().cloned());
        let user_home = crate::env::home().filter(|_| !clear);
        let rules = Rules {
            // Before `path`, which knows what this found.
            reads: self.tools.reads(&program.name, &job.project),
            inputs: job.inputs.values().chain(&program.reads).chain(&user_home).map(Into::into).collect(),
            writes: [dir, &home].into_iter().chain(program.uses.iter()).map(Into::into).collect(),
            network: !clear,
        };
        Ok(Request {
            program: self.tools.path(&program.name).unwrap_or_else(|| program.name.clone()),
            name: program.name.clone(),
            args: program.args.clone(),
            clear,
            vars,
            dir: dir.into(),
            rules: Some(rules),
        })
    }
}

/// How a program failed, in its own last words.
fn failed(ran: &Ran, program: &Program, job: &Job, cancel: &Cancel, log: &Path) -> Ended {
    let code = ran.status.code();
    if code.is_none() || ran.told.is_some() || cancel.is_asked() {
        return conclude(ran, job, cancel, log);
    }
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    let name = program.shown();
    let said: String = tail.iter().map(|line| format!("\n  {line}")).collect();
    let colon = if said.is_empty() { "" } else { ":" };
    let failure = by_names(Failure::target(format!("`{name}` failed ({}){colon}{said}", ran.status)), job);
    match undeclared::lines(tail, &job.project, &job.scratch) {
        lines if lines.is_empty() => Ended::Failed(failure),
        lines => Ended::Undeclared { failure, lines },
    }
}
