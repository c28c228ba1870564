//! The spawner's side: start what is asked for, tell how it ended.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};
use signal_hook::consts::SIGCHLD;
use wait4::Wait4;

use super::family::{self, Family};
use super::watch::Watch;
use super::{EVENTS_FD, Ended, GRACE, Handles, Request, receive, send};
use crate::action::sandbox::Sandbox;
use crate::recipe::terms::Limit;
use crate::util::fs;

/// Serves the build at the other end of standard input until it is gone; returns the exit code.
pub(in crate::action) fn serve(alive: &Path) -> u8 {
    // Held to the end of this function. Gone with the build that named it, there is nobody to tell.
    let alive = fs::open(alive).ok().filter(|file| file.lock_shared().is_ok());
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else { return 2 };
    let Ok((mut ended, signal)) = UnixStream::pair() else { return 3 };
    if ended.set_nonblocking(true).is_err() || signal_hook::low_level::pipe::register(SIGCHLD, signal).is_err() {
        return 3;
    }
    family::adopt();
    let mut running: Vec<Action> = Vec::new();
    let mut sandbox = Sandbox::default();
    loop {
        let ready = match wait(&socket, &ended, &running) {
            Ok(ready) => ready,
            Err(_) => return 3,
        };
        if ready.signal {
            let mut bytes = [0; 64];
            while ended.read(&mut bytes).is_ok_and(|n| n > 0) {}
        }
        // Those that ended first: a line that closes after that says nothing new.
        let firsts: Vec<Pid> = running.iter().map(|action| action.family.first).collect();
        running.retain_mut(|action| !action.has_ended(&firsts));
        let firsts: Vec<Pid> = running.iter().map(|action| action.family.first).collect();
        for action in &mut running {
            action.listen();
            action.look(&firsts);
        }
        if ready.request {
            match request(&socket) {
                Ok(Some((line, handles))) => running.extend(Action::start(line, handles, &mut sandbox)),
                // The build is gone.
                Ok(None) | Err(_) => break,
            }
        }
    }
    running.iter().for_each(|action| action.family.kill());
    family::end_all();
    running.iter_mut().for_each(|action| drop(action.child.try_wait4()));
    drop(alive);
    0
}

struct Ready {
    request: bool,
    signal: bool,
}

fn wait(socket: &UnixStream, ended: &UnixStream, running: &[Action]) -> rustix::io::Result<Ready> {
    let lines = running.iter().filter(|a| !a.killed).map(|a| &a.line);
    let mut fds: Vec<PollFd<'_>> =
        [socket, ended].into_iter().chain(lines).map(|s| PollFd::new(s, PollFlags::IN)).collect();
    let until = running.iter().filter(|a| !a.killed).filter_map(Action::next).min();
    let timeout = until.map(|at| {
        let left = at.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    Ok(Ready { request: !fds[0].revents().is_empty(), signal: !fds[1].revents().is_empty() })
}

/// The next request's line and descriptors; none when the build has closed its end.
fn request(socket: &UnixStream) -> std::io::Result<Option<(UnixStream, Handles)>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => rights.collect::<Vec<OwnedFd>>(),
        _ => Vec::new(),
    });
    let mut next = || descriptors.next().ok_or_else(|| std::io::Error::other("a request without its descriptors"));
    let line = UnixStream::from(next()?);
    Ok(Some((line, Handles { log: next()?, events: next()?, stdin: next()? })))
}

struct Action {
    line: UnixStream,
    child: Child,
    family: Family,
    watch: Watch,
    /// Set when it was asked to end.
    kill_at: Option<Instant>,
    killed: bool,
}

impl Action {
    fn start(mut line: UnixStream, handles: Handles, sandbox: &mut Sandbox) -> Option<Self> {
        // A build that dies in the middle of a request closes the line.
        let request: Request = receive(&mut line).ok()?;
        match spawn(&request, handles, sandbox) {
            Ok(child) => {
                let family = Family::new(Pid::from_child(&child), &request.own);
                // It is read only when there is something to read; never waited for.
                let _ = line.set_nonblocking(true);
                Some(Self { line, child, family, watch: Watch::new(&request), kill_at: None, killed: false })
            }
            Err(error) => {
                let ended = match error.kind() {
                    std::io::ErrorKind::NotFound => Ended::NotFound,
                    _ => Ended::Refused(error.to_string()),
                };
                let _ = send(&mut line, &ended);
                None
            }
        }
    }

    /// Whether it has ended; then it was told. `firsts` are the first processes of all that run.
    fn has_ended(&mut self, firsts: &[Pid]) -> bool {
        let ended = match self.child.try_wait4() {
            Ok(None) => return false,
            Ok(Some(waited)) => Ended::Ran {
                status: waited.status.into_raw(),
                cpu: waited.rusage.utime + waited.rusage.stime,
                peak_bytes: waited.rusage.maxrss,
                stopped: self.watch.stopped(),
            },
            Err(error) => Ended::Refused(format!("cannot wait for it: {error}")),
        };
        // What it started and left behind ends with it.
        self.family.end(firsts);
        let _ = self.line.set_nonblocking(false);
        let _ = send(&mut self.line, &ended);
        true
    }

    /// When there is something to do for it, if nothing happens before.
    fn next(&self) -> Option<Instant> {
        [self.kill_at, self.watch.next()].into_iter().flatten().min()
    }

    /// Does what the build asks for.
    fn listen(&mut self) {
        if self.killed {
            return;
        }
        let mut byte = [0];
        match self.line.read(&mut byte) {
            Ok(0) => self.kill(),
            Ok(_) => self.ask(),
            Err(_) => {}
        }
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill();
        }
    }

    /// Ends it where it has used up what it may.
    fn look(&mut self, firsts: &[Pid]) {
        match self.watch.look(&self.family, firsts) {
            // It may save what it has.
            Some(Limit::Time) => self.ask(),
            Some(Limit::Memory | Limit::Disk) => self.kill(),
            None => {}
        }
    }

    fn ask(&mut self) {
        self.kill_at.get_or_insert_with(|| Instant::now() + GRACE);
        self.family.ask();
    }

    fn kill(&mut self) {
        self.family.kill();
        self.killed = true;
    }
}

#[expect(unsafe_code, reason = "what must happen between fork and exec")]
fn spawn(request: &Request, handles: Handles, sandbox: &mut Sandbox) -> std::io::Result<Child> {
    let mut command = Command::new(&request.program);
    command.arg0(&request.name).args(&request.args).current_dir(&request.dir).process_group(0);
    if request.clear {
        command.env_clear();
    }
    command.envs(request.vars.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::from(handles.stdin)).stderr(Stdio::from(handles.log.try_clone()?));
    command.stdout(Stdio::from(handles.log));
    command
        .fd_mappings(vec![FdMapping { parent_fd: handles.events, child_fd: EVENTS_FD }])
        .expect("one descriptor cannot collide");
    let restriction = request.rules.as_ref().map(|rules| sandbox.restriction(rules)).transpose()?;
    let mut restriction = restriction.flatten();
    let disk = request.limits.disk;
    #[cfg(target_os = "linux")]
    let tmp = request.tmp.clone();
    // SAFETY: this process has one thread, so nothing is in the middle of anything when it forks.
    unsafe {
        command.pre_exec(move || {
            #[cfg(target_os = "linux")]
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // Before it may write nowhere else. Where the system refuses, so does the sandbox: `/tmp` cannot be written.
            #[cfg(target_os = "linux")]
            let _ = tmp.as_ref().map(|dir| crate::action::sandbox::mount_tmp(dir.as_ref()));
            if let Some(bytes) = disk {
                // The system refuses a file beyond it at once; what all files are together is looked at.
                setrlimit(Resource::Fsize, Rlimit { current: Some(bytes), maximum: Some(bytes) })?;
            }
            restriction.take().map_or(Ok(()), |restriction| restriction.enforce())
        });
    }
    command.spawn()
}
