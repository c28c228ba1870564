//! The spawner's side: start what is asked for, tell how it ended.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use signal_hook::consts::SIGCHLD;
use wait4::Wait4;

use super::{EVENTS_FD, Ended, GRACE, Handles, Request, receive, send};
use crate::action::sandbox::Sandbox;
use crate::util::fs;

/// How long killed programs are waited for; one that hangs in the kernel is not.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether they are gone.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Serves the build at the other end of standard input until it is gone; returns the exit code.
pub(in crate::action) fn serve(alive: &Path) -> u8 {
    // Held to the end of this function. Gone with the build that named it, there is nobody to tell.
    let alive = fs::open(alive).ok().filter(|file| file.lock_shared().is_ok());
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else { return 2 };
    let Ok((mut ended, signal)) = UnixStream::pair() else { return 3 };
    if ended.set_nonblocking(true).is_err() || signal_hook::low_level::pipe::register(SIGCHLD, signal).is_err() {
        return 3;
    }
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
        running.retain_mut(|action| !action.has_ended());
        for action in &mut running {
            action.listen();
        }
        if ready.request {
            match request(&socket) {
                Ok(Some((line, handles))) => running.extend(Action::start(line, handles, &mut sandbox)),
                // The build is gone.
                Ok(None) | Err(_) => break,
            }
        }
    }
    running.iter().for_each(Action::kill);
    let begin = Instant::now();
    // Its first process is gone when it was waited for, the others when the group is.
    while running
        .iter_mut()
        .any(|a| a.child.try_wait4().is_ok_and(|w| w.is_none()) || test_kill_process_group(a.group).is_ok())
        && begin.elapsed() < PATIENCE
    {
        std::thread::sleep(LOOK_AGAIN);
    }
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
    let until = running.iter().filter(|a| !a.killed).filter_map(|a| a.kill_at).min();
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
    group: Pid,
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
                let group = Pid::from_child(&child);
                // It is read only when there is something to read; never waited for.
                let _ = line.set_nonblocking(true);
                Some(Self { line, child, group, kill_at: None, killed: false })
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

    /// Whether it has ended; then it was told.
    fn has_ended(&mut self) -> bool {
        let ended = match self.child.try_wait4() {
            Ok(None) => return false,
            Ok(Some(waited)) => Ended::Ran {
                status: waited.status.into_raw(),
                cpu: waited.rusage.utime + waited.rusage.stime,
                peak_bytes: waited.rusage.maxrss,
            },
            Err(error) => Ended::Refused(format!("cannot wait for it: {error}")),
        };
        // What it started and left behind ends with it.
        self.kill();
        let _ = self.line.set_nonblocking(false);
        let _ = send(&mut self.line, &ended);
        true
    }

    /// Does what the build asks for.
    fn listen(&mut self) {
        if self.killed {
            return;
        }
        let mut byte = [0];
        match self.line.read(&mut byte) {
            Ok(0) => {
                self.kill();
                self.killed = true;
            }
            Ok(_) => {
                self.kill_at.get_or_insert_with(|| Instant::now() + GRACE);
                let _ = kill_process_group(self.group, Signal::TERM);
            }
            Err(_) => {}
        }
        if self.kill_at.is_some_and(|at| at <= Instant::now()) {
            self.kill();
            self.killed = true;
        }
    }

    fn kill(&self) {
        let _ = kill_process_group(self.group, Signal::KILL);
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
    // SAFETY: this process has one thread, so nothing is in the middle of anything when it forks.
    unsafe {
        command.pre_exec(move || {
            #[cfg(target_os = "linux")]
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            restriction.take().map_or(Ok(()), |restriction| restriction.enforce())
        });
    }
    command.spawn()
}
