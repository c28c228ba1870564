//! Programs that are run again and again to be timed: what each run took, and how one failed.
//!
//! All is ready before the clock starts: the program, its variables, where its words go. Between the two looks at the clock
//! there is its start and its end, as with hyperfine. They are started by a thread that gave up, once for all, the rights
//! that they are not to have, so nothing is done for the sandbox at each start. What a program opens costs it more in the
//! sandbox all the same: 3 % of grep's time, which opens 36 files in two milliseconds.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use wait4::Wait4;

use super::program::Program;
use super::sandbox::{self, Rules, Sandbox};
use super::{surroundings, undeclared};
use crate::failure::Failure;
use crate::kind::ActionCx;
use crate::measure::Sample;
use crate::util::fs;

/// Of what a failed program said, this much is repeated.
const TAIL_LINES: usize = 6;

/// Programs, where they run, and what they may read.
#[derive(Debug)]
pub struct Timed {
    programs: Vec<Program>,
    vars: Vec<(OsString, OsString)>,
    rules: Option<Rules>,
    project: PathBuf,
    dir: PathBuf,
    words: PathBuf,
}

impl Timed {
    /// Programs that run in the action's directory, where what they are given lies already.
    pub fn new(cx: &ActionCx<'_>, programs: Vec<Program>) -> Result<Self, Failure> {
        let (dir, project) = (cx.scratch().to_owned(), cx.project_root().to_owned());
        let own = dir.parent().unwrap_or(&dir);
        let (home, words) = (own.join("home"), own.join("words"));
        fs::create_dir_all(&home)?;
        let passed = |name: String| Some((name.clone().into(), crate::env::passed(&name)?));
        let mut vars = surroundings(&home, &home);
        vars.extend(cx.decl.variables().into_iter().filter_map(passed));
        vars.push(("PWD".into(), dir.clone().into()));
        // A program of the search path may be a link to one that has its library elsewhere.
        let found = |program: Program| {
            let path = program.name.to_str().filter(|name| !name.contains('/')).and_then(crate::env::find_program);
            path.map_or(program.clone(), |path| program.reads_beside(&path, &project))
        };
        let programs: Vec<Program> = programs.into_iter().map(found).collect();
        let all = || programs.iter();
        let rules = cx.is_held().then(|| Rules {
            reads: sandbox::programs(&crate::env::path(), &project, None).into_iter().map(Into::into).collect(),
            inputs: cx.inputs.values().chain(all().flat_map(|program| &program.reads)).map(Into::into).collect(),
            writes: [&dir, &home].into_iter().chain(all().flat_map(|program| &program.uses)).map(Into::into).collect(),
            network: false,
        });
        Ok(Self { programs, vars, rules, project, dir, words })
    }

    /// Does some work that runs them, each by its place, and meanwhile something else on this thread. The work and the programs
    /// are one thread's: handed over to another at each start, a program of two milliseconds takes 2 to 4 % longer, since it
    /// then begins on a core that has none of it in its caches.
    pub fn run<R: Send>(
        &self,
        work: impl FnOnce(&mut dyn FnMut(usize) -> Result<Sample, Failure>) -> R + Send,
        meanwhile: impl FnOnce(),
    ) -> Result<R, Failure> {
        std::thread::scope(|scope| {
            let held = scope.spawn(move || {
                let mut ready = self.ready()?;
                Ok(work(&mut |program| self.once(program, &mut ready)))
            });
            meanwhile();
            held.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Gives this thread's rights up, and makes all ready.
    fn ready(&self) -> Result<(Vec<Command>, File), Failure> {
        let words = File::options().read(true).append(true).create(true).open(&self.words);
        let words = fs::at("open", &self.words, words)?;
        let refused = |e: std::io::Error| Failure::environment(format!("programs cannot be held to their inputs: {e}"));
        let restriction = self.rules.as_ref().map(|rules| Sandbox::default().restriction(rules)).transpose();
        if let Some(restriction) = restriction.map_err(refused)?.flatten() {
            restriction.enforce().map_err(refused)?;
        }
        let command = |program: &Program| -> Result<Command, Failure> {
            let mut command = Command::new(self.place(program));
            command.arg0(&program.name);
            command.args(&program.args).current_dir(&self.dir).env_clear();
            let own = program.vars.iter();
            command.envs(self.vars.iter().chain(own).map(|(name, value)| (name, value)));
            let words = fs::at("open", &self.words, words.try_clone())?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(words));
            Ok(command)
        };
        Ok((self.programs.iter().map(command).collect::<Result<_, _>>()?, words))
    }

    /// Its whole path. Where it is known the process is made by `posix_spawn`, which costs the same however large this one is;
    /// by its name alone it would be by `fork`, which takes a millisecond more, and that would be the program's.
    fn place(&self, program: &Program) -> PathBuf {
        let name = Path::new(&program.name);
        match program.name.to_str().filter(|name| !name.contains('/')) {
            Some(name) => crate::env::find_program(name).unwrap_or_else(|| name.into()),
            None => self.dir.join(name),
        }
    }

    fn once(&self, program: usize, (commands, words): &mut (Vec<Command>, File)) -> Result<Sample, Failure> {
        let (command, program) = (&mut commands[program], &self.programs[program]);
        fs::at("empty", &self.words, words.set_len(0))?;
        let begin = Instant::now();
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => program.not_installed(),
            _ => Failure::environment(format!("cannot start `{}`: {error}", program.shown())),
        })?;
        let ended = child.wait4();
        let wall_s = begin.elapsed().as_secs_f64();
        let ended =
            ended.map_err(|error| Failure::environment(format!("cannot wait for `{}`: {error}", program.shown())))?;
        if !ended.status.success() {
            return Err(self.failed(program, ended.status, words));
        }
        let cpu_s = (ended.rusage.utime + ended.rusage.stime).as_secs_f64();
        Ok(Sample { wall_s, cpu_s, peak_bytes: ended.rusage.maxrss, first_s: None })
    }

    /// How it failed, in its own last words. This thread may no longer open them.
    fn failed(&self, program: &Program, status: ExitStatus, words: &mut File) -> Failure {
        let mut bytes = Vec::new();
        // What cannot be read is not repeated; that it failed is what matters.
        let _ = words.rewind().and_then(|()| words.read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        let said: String = tail.iter().map(|line| format!("\n  {line}")).collect();
        let colon = if said.is_empty() { "" } else { ":" };
        let failure = Failure::target(format!("`{}` failed ({status}){colon}{said}", program.shown()));
        let lacks = undeclared::lines(tail, &self.project, &self.dir);
        match lacks.is_empty() {
            true => failure,
            false => failure.help(format!(
                "a program is given only what its target declares; add to the target: {}",
                lacks.join("; ")
            )),
        }
    }
}
