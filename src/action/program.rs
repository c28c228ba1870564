//! Programs that a kind calls: package managers, a user's commands.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::sandbox;
use crate::failure::Failure;

/// A program, its arguments and its surroundings.
#[derive(Clone, Debug)]
pub struct Program {
    pub(super) name: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) dir: Option<PathBuf>,
    pub(super) stdin: Option<PathBuf>,
    pub(super) vars: Vec<(OsString, OsString)>,
    pub(super) reads: Vec<PathBuf>,
    pub(super) uses: Vec<PathBuf>,
    pub(super) has_tmp: bool,
    install: Option<String>,
    called: Option<String>,
}

/// What a program that succeeded wrote.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
}

impl Program {
    /// A program found on the search path.
    pub fn new(name: impl Into<OsString>) -> Self {
        let (args, vars, reads, uses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (dir, stdin, install, called) = (None, None, None, None);
        Self { name: name.into(), args, dir, stdin, vars, reads, uses, has_tmp: false, install, called }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Runs in this directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Has this file for its standard input, where the engine starts it.
    #[must_use]
    pub fn stdin(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdin = Some(path.into());
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn var(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.vars.push((name.into(), value.into()));
        self
    }

    /// May read this file, or all below this directory, where the engine starts it and holds it to what it declares.
    #[must_use]
    pub fn reads(mut self, path: impl Into<PathBuf>) -> Self {
        self.reads.push(path.into());
        self
    }

    /// May read and write this file, or all below this directory, likewise.
    #[must_use]
    pub fn uses(mut self, path: impl Into<PathBuf>) -> Self {
        self.uses.push(path.into());
        self
    }

    /// May read what another program, by its path, keeps beside itself, wherever that is linked to.
    #[must_use]
    pub fn reads_beside(self, program: &Path, project: &Path) -> Self {
        let real = program.canonicalize().ok();
        let prefix = real.as_deref().and_then(Path::parent);
        match prefix.map(|dir| sandbox::prefix(dir, project, crate::env::home().as_deref())) {
            Some(prefix) if !sandbox::is_open(&prefix) => self.reads(prefix),
            _ => self,
        }
    }

    /// With the variables and the rights of another one.
    #[must_use]
    pub fn given(mut self, other: &Self) -> Self {
        self.vars.extend(other.vars.iter().cloned());
        self.reads.extend(other.reads.iter().cloned());
        self.uses.extend(other.uses.iter().cloned());
        self
    }

    /// The same program in the same surroundings, run by another: `name ARGS PROGRAM ITS-ARGS`.
    #[must_use]
    pub(super) fn run_by(&self, name: &str, args: impl IntoIterator<Item = OsString>) -> Self {
        let args = args.into_iter().chain([self.name.clone()]).chain(self.args.iter().cloned()).collect();
        let called = Some(self.shown().into_owned());
        Self { name: name.into(), args, called, ..self.clone() }
    }

    /// Has a `/tmp` of its own, where the engine starts it and the system lets it.
    #[must_use]
    pub fn private_tmp(mut self) -> Self {
        self.has_tmp = true;
        self
    }

    /// What it is called in messages, where that is not its name.
    #[must_use]
    pub fn called(mut self, name: impl Into<String>) -> Self {
        self.called = Some(name.into());
        self
    }

    /// What it is called in messages.
    pub(super) fn shown(&self) -> Cow<'_, str> {
        self.called.as_deref().map_or_else(|| self.name.to_string_lossy(), Cow::Borrowed)
    }

    /// How to get it where it is missing.
    #[must_use]
    pub fn install(mut self, how: impl Into<String>) -> Self {
        self.install = Some(how.into());
        self
    }

    /// It cannot be found.
    pub(super) fn not_installed(&self) -> Failure {
        let name = self.name.to_string_lossy();
        let failure = Failure::environment(format!("`{name}` is not installed"));
        match &self.install {
            Some(how) => failure.help(how.clone()),
            None => failure.help(format!("install `{name}`, or put it on the PATH")),
        }
    }

    /// What it says on its standard output; none where it fails. Its words are no action's log.
    pub fn ask(&self) -> Option<String> {
        let output = self.output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it to its end. Its output is kept in the action's log and shown only where it fails.
    pub fn run(&self) -> Result<Output, Failure> {
        let name = self.name.to_string_lossy();
        self.run_or(|status, text| {
            let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
            let tail = lines[lines.len().saturating_sub(6)..].join("\n  ");
            Failure::target(format!("`{name}` failed ({status}):\n  {tail}"))
        })
    }

    /// As [`Program::run`]; how it failed is said by its caller, of all that it wrote.
    pub fn run_or(&self, failed: impl FnOnce(ExitStatus, &str) -> Failure) -> Result<Output, Failure> {
        let output = self.output()?;
        // Standard error is the action's log; what a program that succeeded gave is its caller's to log.
        let _ = std::io::stderr().write_all(&output.stderr);
        if output.status.success() {
            return Ok(Output { stdout: String::from_utf8_lossy(&output.stdout).into_owned() });
        }
        let _ = std::io::stderr().write_all(&output.stdout);
        let text = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Err(failed(output.status, &text))
    }

    fn output(&self) -> Result<std::process::Output, Failure> {
        let mut command = Command::new(&self.name);
        command.args(&self.args).stdin(Stdio::null()).envs(self.vars.iter().map(|(k, v)| (k, v)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let name = self.name.to_string_lossy();
        command.output().map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                self.not_installed()
            } else {
                Failure::environment(format!("cannot start `{name}`: {error}"))
            }
        })
    }
}
