//! What a build asks a watch of its project before it looks for itself: whether there is anything to do.
//!
//! ```text
//! build   connects to .effai/watch/socket, says what it was asked for, waits a moment
//! watch   makes a file, waits for the event that it came, and so has seen every edit from before the question
//!         says that it looks into it, if nothing happened since the last build; answers if nothing is to be done; else closes the connection without a word
//! ```
//!
//! Silence is an answer that costs little: the build goes on as if nobody watched. So whatever is in doubt, here or
//! there, is met with silence: another program, another profile, an edit under way, a file whose changes make no event.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::engine::{self, Surrounding};
use crate::fingerprint::evidence::Stat;
use crate::plan::Label;
use crate::recipe::roots::{self, Stand};

/// A build that has no word by then looks for itself.
const PATIENCE: Duration = Duration::from_millis(50);

/// A build that was told that its question is looked into waits longer: the first after an edit costs the watch some time
/// in a large project, and a build more.
const LONG_PATIENCE: Duration = Duration::from_secs(1);

/// What a build wants to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The program that asks: only the same one knows recipes, kinds and these words in the same way.
    pub(super) program: Option<Stat>,
    pub(super) root: PathBuf,
    pub(super) base: String,
    pub(super) profile: Option<String>,
    /// What was named; nothing stands for the project's default.
    pub(super) words: Vec<String>,
    /// Whether the labels of what is fresh are to be told.
    pub(super) labels: bool,
}

/// That nothing is to be done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fresh {
    /// The targets in question.
    pub targets: usize,
    /// Their labels in the order of a build, if those were asked for.
    pub labels: Vec<Label>,
    /// What must be the same around the process that asks.
    pub(super) surroundings: Vec<Surrounding>,
}

impl Question {
    /// What a build in this directory asks.
    pub fn new(dir: &Path, profile: Option<&str>, words: &[String], labels: bool) -> Option<Self> {
        let Stand { root, base } = roots::find(dir).ok()?;
        let (profile, words) = (profile.map(str::to_owned), words.to_vec());
        Some(Self { program: engine::program(), root, base, profile, words, labels })
    }

    /// The project's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Asks whoever watches the project; none where nobody does, or something may have to be done.
    pub fn ask(&self) -> Option<Fresh> {
        self.program?;
        let mut stream = connect(&socket(&self.root))?;
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(&postcard::to_stdvec(self).ok()?).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        stream.read_exact(&mut [0]).ok()?;
        stream.set_read_timeout(Some(LONG_PATIENCE)).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let fresh: Fresh = postcard::from_bytes(&answer).ok()?;
        fresh.surroundings.iter().all(Surrounding::holds).then_some(fresh)
    }
}

/// Where builds of a project ask.
pub(super) fn socket(root: &Path) -> PathBuf {
    dir(root).join("socket")
}

/// What the watch of a project needs for that.
pub(super) fn dir(root: &Path) -> PathBuf {
    root.join(".effai/watch")
}

/// Connects without waiting: where many wait already, one more gains nothing.
fn connect(path: &Path) -> Option<UnixStream> {
    let address = SocketAddrUnix::new(path).ok()?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    rustix::net::connect(&socket, &address).ok()?;
    Some(UnixStream::from(socket))
}
