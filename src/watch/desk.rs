//! Where builds ask a watch, see `ask`: a socket that only the user can reach, and a thread that takes the questions.
//!
//! One watch of a project has a desk; it holds a lock for as long as it lives. A socket that a killed one left is taken
//! away by the next. Where there can be none (a path too long for a socket, a second watch) builds look for themselves.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::ask::{self, Fresh, Question};
use super::eyes::Seen;
use crate::util::fs;

/// Who says nothing for so long is not heard.
const PATIENCE: Duration = Duration::from_secs(1);

/// A question in bytes: labels of a command line, which have less than that.
const QUESTION_BYTES_MAX: u64 = 4 << 20;

/// A build that waits for its answer; dropped, it goes on by itself.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    /// When the event of this file has come, all from before the question have.
    pub(super) cookie: PathBuf,
    stream: UnixStream,
}

impl Asked {
    pub(super) fn new(question: Question, cookie: PathBuf, stream: UnixStream) -> Self {
        Self { question, cookie, stream }
    }

    /// Says that an answer may come, or that what is known is being written down.
    pub(super) fn look_into(&mut self) {
        let _ = self.stream.write_all(&[0]);
    }

    pub(super) fn answer(mut self, fresh: &Fresh) {
        // Whoever asked may have gone.
        let _ = self.stream.write_all(&postcard::to_stdvec(fresh).expect("plain data"));
    }
}

/// Open for questions until it is dropped.
pub(super) struct Desk {
    socket: PathBuf,
    _lock: File,
}

impl Desk {
    /// Takes questions for the project in this directory, which is without links; none where that cannot be.
    pub(super) fn open(root: &Path, sender: Sender<Seen>) -> Option<Self> {
        let (dir, socket) = (ask::dir(root), ask::socket(root));
        fs::create_private_dir(&dir).ok()?;
        let lock = fs::create(&dir.join("lock")).ok()?;
        lock.try_lock().ok()?;
        for left in fs::list(&dir).ok()?.iter().filter(|path| !path.ends_with("lock")) {
            fs::remove_file(left).ok()?;
        }
        let listener = UnixListener::bind(&socket).ok()?;
        fs::make_private(&socket).ok()?;
        std::thread::spawn(move || take_questions(&listener, &dir, &sender));
        Some(Self { socket, _lock: lock })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // One that stays is refused by the system.
        let _ = fs::remove_file(&self.socket);
    }
}

fn take_questions(listener: &UnixListener, dir: &Path, sender: &Sender<Seen>) {
    for (number, stream) in listener.incoming().enumerate() {
        let Some((question, stream)) = stream.ok().and_then(hear) else { continue };
        let cookie = dir.join(number.to_string());
        let asked = Asked::new(question, cookie.clone(), stream);
        if sender.send(Seen::Asked(asked)).is_err() {
            return;
        }
        let _ = fs::create(&cookie);
        // It was there, and the event of that is on its way.
        let _ = fs::remove_file(&cookie);
    }
}

fn hear(stream: UnixStream) -> Option<(Question, UnixStream)> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    let mut bytes = Vec::new();
    (&stream).take(QUESTION_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some((postcard::from_bytes(&bytes).ok()?, stream))
}
