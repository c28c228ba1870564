//! The process that starts actions.
//!
//! A build does not start programs itself. It has one small process for that, this program again with a hidden verb,
//! started with the first action:
//!
//! - a `fork` of a small process costs little, however large the build has grown; and what the system says of an
//!   action's peak memory is the action's, not the build's, which `fork` would hand on;
//! - it has one thread, so what is set up between `fork` and `exec` (Landlock, the death signal) is safe to do;
//! - it outlives a killed build by an instant: its end of the socket closes, it ends every action and then itself. Until
//!   then it keeps a lock, by which the next build knows that nobody writes any more where the killed one's actions ran.
//!
//! ```text
//! build                                   spawner                    action
//!   one byte + log, events, stdin, line -->
//!   line: the request ------------------->  fork, restrict, exec -->
//!   line: a byte: end it; closed: kill it   signal to its group  -->
//!   line: how it ended <------------------  wait4, kill what it left
//! ```
//!
//! It looks after the limits of what it started, too: [`watch`].

mod family;
mod serve;
mod watch;

use std::ffi::OsString;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) use serve::serve;

use super::sandbox::Rules;
use crate::failure::Failure;
use crate::recipe::terms::{Limit, Limits};

/// The hidden verb that makes this program a spawner.
pub(crate) const VERB: &str = "__spawner";

/// How long an action may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(3);

/// The descriptor an action's events go to.
pub(super) const EVENTS_FD: i32 = 3;

/// A program to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) program: OsString,
    /// What it is called to itself.
    pub(super) name: OsString,
    pub(super) args: Vec<OsString>,
    /// Begin with no variables, not with the build's own.
    pub(super) clear: bool,
    pub(super) vars: Vec<(OsString, OsString)>,
    pub(super) dir: OsString,
    /// What it may read and write; anything, without.
    pub(super) rules: Option<Rules>,
    /// A directory that it has for `/tmp`, where the system lets it.
    pub(super) tmp: Option<OsString>,
    /// What it may use up.
    pub(super) limits: Limits,
    /// The directory that is the action's own: it is what counts as its disk, and its processes are known by it.
    pub(super) own: OsString,
}

/// Descriptors an action gets.
pub(super) struct Handles {
    pub(super) log: OwnedFd,
    pub(super) events: OwnedFd,
    pub(super) stdin: OwnedFd,
}

/// How a program ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ended {
    /// It ran.
    Ran {
        /// As `wait` gives it.
        status: i32,
        /// User and system time.
        cpu: Duration,
        /// Peak resident memory.
        peak_bytes: u64,
        /// The limit it was ended for.
        stopped: Option<Limit>,
    },
    /// There is no such program.
    NotFound,
    /// It could not be started.
    Refused(String),
}

/// The build's end of its spawner.
#[derive(Debug)]
pub(super) struct Spawner {
    socket: Mutex<UnixStream>,
    process: Child,
}

/// A started action. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Running {
    line: UnixStream,
}

impl Spawner {
    /// It holds a shared lock on `alive` until all that it starts has ended.
    pub(super) fn start(alive: &Path) -> Result<Self, Failure> {
        let fail = |e| Failure::environment(format!("cannot start the process that starts actions: {e}"));
        let me = std::env::current_exe().map_err(fail)?;
        let (ours, theirs) = UnixStream::pair().map_err(fail)?;
        // A group of its own: Ctrl-C is for the build to act on.
        let mut command = Command::new(me);
        command.arg(VERB).arg(alive).stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).process_group(0);
        let process = command.spawn().map_err(fail)?;
        Ok(Self { socket: Mutex::new(ours), process })
    }

    /// Starts a program; none where this process is gone and no action was begun.
    pub(super) fn run(&self, request: &Request, handles: &Handles) -> Result<Option<Running>, Failure> {
        let fail = |e: std::io::Error| Failure::environment(format!("cannot start an action: {e}"));
        let (mut line, theirs) = UnixStream::pair().map_err(fail)?;
        let descriptors = [theirs.as_fd(), handles.log.as_fd(), handles.events.as_fd(), handles.stdin.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        {
            let socket = self.socket.lock().expect("no panic holds this");
            match sendmsg(&*socket, &[IoSlice::new(b"+")], &mut control, SendFlags::empty()) {
                Err(Errno::PIPE | Errno::CONNRESET) => return Ok(None),
                sent => sent.map_err(|e| fail(e.into()))?,
            };
        }
        drop(theirs);
        // Nothing is begun before the whole of it has come.
        match send(&mut line, request) {
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => Ok(None),
            sent => sent.map(|()| Some(Running { line })).map_err(fail),
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // It ends what still runs, and itself.
        let _ = self.socket.lock().expect("no panic holds this").shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

impl Running {
    /// Another hold on it, to end it by.
    pub(super) fn ender(&self) -> Option<Ender> {
        self.line.try_clone().ok().map(|line| Ender { line })
    }

    /// Waits for its end.
    pub(super) fn wait(mut self) -> Result<Ended, Failure> {
        receive(&mut self.line)
            .map_err(|_| Failure::environment("the process that starts actions was ended, and this action with it")
                .help("build again; where nothing ended it on purpose, the system's log says what it killed for want of memory"))
    }
}

/// Ends an action.
#[derive(Debug)]
pub(super) struct Ender {
    line: UnixStream,
}

impl Ender {
    /// Asks it to end; it is killed if it does not in [`GRACE`].
    pub(super) fn end(&self) {
        // One that is gone has ended.
        let _ = (&self.line).write_all(b"-");
    }
}

/// A length and a value.
fn send(to: &mut UnixStream, value: &impl Serialize) -> std::io::Result<()> {
    let body = postcard::to_stdvec(value).expect("plain data");
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(body);
    to.write_all(&bytes)
}

fn receive<T: DeserializeOwned>(from: &mut UnixStream) -> std::io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body).map_err(std::io::Error::other)
}
