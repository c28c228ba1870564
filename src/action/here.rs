//! A program of the user's own, run as from a shell: with the whole environment.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Cancel, Ending};
use crate::failure::Failure;

/// Runs a program to its end; what it prints goes to standard error, where it is not in the way of results. It ends
/// with `cancel`.
///
/// # Panics
/// If `argv` is empty.
pub fn run_here(argv: &[String], root: &Path, cancel: &Cancel) -> Result<(), Failure> {
    let (program, args) = argv.split_first().expect("a program was named");
    let cannot = |e: std::io::Error| {
        let failure = Failure::environment(format!("cannot run `{program}`: {e}"));
        match e.kind() {
            std::io::ErrorKind::NotFound => failure.help("check the name; no shell is used unless it is the program"),
            _ => failure,
        }
    };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map_err(cannot)?;
    let mut child = Command::new(program)
        .args(args)
        .current_dir(root)
        .stdin(Stdio::null())
        .stdout(stderr)
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    let group = Pid::from_child(&child);
    let number = cancel.add(Ending::Group(group));
    let status = child.wait();
    cancel.remove(number);
    // What it left behind ends with it.
    let _ = kill_process_group(group, Signal::KILL);
    let status = status.map_err(cannot)?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::target(format!("`{program}` ended with code {code}"))),
        None => Err(Failure::target(format!("`{program}` was stopped"))),
    }
}

/// Becomes another program, with these variables besides; returns only where that fails.
pub fn become_program(program: &OsStr, vars: &[(&str, OsString)]) -> Failure {
    let error = Command::new(program).envs(vars.iter().map(|(name, value)| (name, value))).exec();
    Failure::environment(format!("cannot start `{}`: {error}", program.display()))
}
