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
    Attempt, Ended, NotStarted, Processes, Ran, Rules, by_names, conclude, limits, opened, passed, sandbox,
    surroundings, undeclared,
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
    pub(super) fn program(
        &self,
        kind: &dyn Launch,
        attempt: &mut Attempt<'_>,
        ran: &mut Option<Ran>,
        said: &mut dyn FnMut(ActionEvent),
    ) -> Result<Ended, Failure> {
        let job = attempt.job;
        let is_held = sandbox::is_there() && job.is_sandboxed;
        if !is_held && job.is_sandboxed && self.tools.warned.set(()).is_ok() {
            let text = "nothing checks what commands read: this system has neither Landlock (Linux 5.13) nor sandbox-exec (macOS)".into();
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
        let mut program = kind.prepare(&mut cx)?;
        if let Some(to) = &job.watched {
            let outputs = job.decl.fields["output"].as_array().into_iter().flatten();
            let outputs: Vec<PathBuf> = outputs.filter_map(|path| Some(path.as_str()?.into())).collect();
            opened::lay_out_all(&job.project, &job.scratch, &outputs)?;
            program = opened::watched(&program, to);
        }
        let request = self.request(&program, attempt)?;
        let ran = match self.start(request, attempt, program.stdin.as_deref(), &mut *cx.events) {
            Ok(ended) => ran.insert(ended),
            Err(NotStarted::Failed(failure)) => return Err(failure),
            Err(NotStarted::NotFound) => return Err(program.not_installed()),
        };
        let ended = kind.ended(&mut cx);
        if ran.status.success() && ran.stopped.is_none() {
            let told = told.take();
            return ended.and_then(|()| kind.conclude(&mut cx, &told)).map(|()| Ended::Done);
        }
        Ok(failed(ran, &program, attempt))
    }

    fn request(&self, program: &Program, attempt: &Attempt<'_>) -> Result<Request, Failure> {
        let job = attempt.job;
        let (home, dir) = (attempt.own().join("home"), &job.scratch);
        fs::create_dir_all(&home)?;
        // What waits for the network needs the user's own settings: indexes, proxies, certificates.
        let clear = attempt.pool != Pool::Network;
        let mut vars = if clear { surroundings(&home, &home) } else { Vec::new() };
        vars.extend(passed(job));
        vars.extend(program.vars.iter().cloned());
        vars.extend(job.checkpoint.iter().map(|dir| ("EFFAI_CHECKPOINT".into(), dir.into())));
        let tmp = attempt.own().join("tmp");
        // What lies in the machine's own could not be found any more.
        let is_elsewhere = |path: &Path| !path.starts_with("/tmp");
        let has_tmp = program.has_tmp
            && job.is_sandboxed
            && [attempt.own(), &job.project]
                .into_iter()
                .chain(job.inputs.values().map(PathBuf::as_path))
                .all(is_elsewhere)
            && program.reads.iter().chain(&program.uses).map(PathBuf::as_path).all(is_elsewhere);
        if has_tmp {
            fs::create_dir_all(&tmp)?;
        }
        let tmp = has_tmp.then_some(tmp);
        let user_home = crate::env::home().filter(|_| !clear);
        let rules = Rules {
            // Before `path`, which knows what this found.
            reads: self.tools.reads(&program.name, &job.project),
            inputs: job.inputs.values().chain(&program.reads).chain(&user_home).map(Into::into).collect(),
            writes: [dir, &home]
                .into_iter()
                .chain(&program.uses)
                .chain(&job.checkpoint)
                .chain(&tmp)
                .map(Into::into)
                .collect(),
            network: !clear,
        };
        let request = Request {
            program: self.tools.path(&program.name).unwrap_or_else(|| program.name.clone()),
            name: program.name.clone(),
            args: program.args.clone(),
            clear,
            vars,
            dir: program.dir.as_ref().unwrap_or(dir).into(),
            rules: job.is_sandboxed.then_some(rules),
            tmp: tmp.map(Into::into),
            limits: attempt.limits,
            own: attempt.own().into(),
        };
        Ok(sandbox::wrapped(request))
    }
}

/// How a program failed, as it told or in its own last words.
fn failed(ran: &Ran, program: &Program, attempt: &Attempt<'_>) -> Ended {
    let job = attempt.job;
    if ran.status.code().is_none() || ran.stopped.is_some() || attempt.cancel.is_asked() {
        return conclude(ran, attempt);
    }
    if let Some(told) = &ran.told {
        let said: Vec<&str> = told.message.lines().collect();
        return match (conclude(ran, attempt), undeclared::lines(&said, &job.project, &job.scratch)) {
            (Ended::Failed(failure), lines) if !lines.is_empty() => Ended::Undeclared { failure, lines },
            (ended, _) => ended,
        };
    }
    let bytes = fs::read(attempt.log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    if let Some(failure) = limits::reached(ran, &attempt.limits, &text) {
        return Ended::Failed(failure);
    }
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
