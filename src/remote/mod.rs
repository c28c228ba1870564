//! Artifacts in other places: directories and object stores, beside the store of this machine.
//!
//! Whoever asks is never held up by an answer: [`Remotes::fetch`] and [`Remotes::send`] return at once, and what comes of
//! them is heard. A remote that does not answer, or says no, is left out from then on, and that is told once. What it
//! gives is believed only as far as it hashes to its name.
//!
//! Async stops here: this module alone has a runtime, and nothing above it knows.
//!
//! Where to start: `layout.rs` for what lies on a remote, `place.rs` for one of them, `fetch.rs` and `send.rs` for the two
//! directions. Remotes never learn what a target is, nor do they decide what is wanted.
//!
//! Invariants: a key on a remote names an artifact whose bytes were all there before; an object never changes, so two
//! who send at once send the same. A key that is there stays, also where somebody else got other bytes for it.

mod fetch;
mod layout;
mod place;
mod send;
mod upload;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{OwnedMutexGuard, Semaphore};

use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::recipe::remote::{Access, Remote};
use crate::store::{BlobEvidence, KeyRow, Store, StoreError};
use crate::util::fs::FsError;

use place::Place;

pub use layout::Record;

/// Threads that wait for the network; what is hashed and written is done by them, too.
const THREADS: usize = 2;

/// For how long remotes stay open from one build to the next.
const KEPT: Duration = Duration::from_secs(300);

/// Large blobs that come or go at once.
const BLOBS_AT_ONCE: usize = 4;

/// The remotes of a project.
pub struct Remotes {
    shared: Arc<Shared>,
    /// None once it is being dropped.
    runtime: Option<Runtime>,
}

/// Remotes that are opened once for several builds, so that one that does not answer holds up a watch once and not after
/// each edit. After a while they are tried again.
#[derive(Default)]
pub struct Opened {
    last: Mutex<Option<Last>>,
}

struct Last {
    of: Vec<Remote>,
    at: Instant,
    remotes: Arc<Remotes>,
}

impl Opened {
    /// These remotes, as they were opened before if that is not long ago; none where there are none.
    pub fn these(&self, remotes: Vec<Remote>, root: &Path, store: &Store) -> Result<Option<Arc<Remotes>>, Failure> {
        if remotes.is_empty() {
            return Ok(None);
        }
        let mut last = self.last.lock().expect("no panic holds this");
        if let Some(last) = last.as_ref().filter(|last| last.of == remotes && last.at.elapsed() < KEPT) {
            return Ok(Some(last.remotes.clone()));
        }
        let opened = Arc::new(Remotes::new(&remotes, root, store)?);
        *last = Some(Last { of: remotes, at: Instant::now(), remotes: opened.clone() });
        Ok(Some(opened))
    }
}

/// What every task of theirs has.
struct Shared {
    /// In the order in which they are asked.
    places: Vec<Arc<Place>>,
    store: Store,
    blobs: Arc<Semaphore>,
    /// Of blobs that come.
    turns: Turns,
}

/// What is to be fetched.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The artifact of a key, whichever that is.
    Key(Digest),
    /// This very artifact, of which this much is known.
    Artifact(Box<KeyRow>),
}

/// What is told while something is fetched or sent.
#[derive(Debug)]
pub enum Heard {
    /// A remote is left out from now on. Told once of each.
    LeftOut(LeftOut),
    /// A remote has something else than it should; it was not taken.
    Wrong(Wrong),
    /// A remote has the key: its artifact is coming.
    Begun {
        /// Which remote.
        remote: String,
    },
    /// How far it is.
    Progress {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The last of a fetch: what came; nothing if no remote has the key.
    Fetched(Option<Box<Fetched>>),
    /// The last of a send.
    Sent(Vec<Sent>),
    /// The last of either: this machine is at fault.
    Failed(Failure),
}

/// Who hears it.
pub type Hear = Arc<dyn Fn(Heard) + Send + Sync>;

/// A remote that is not asked any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub remote: String,
    /// Why.
    pub why: String,
}

/// An object that is not what its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The remote.
    pub remote: String,
    /// The object's path on it.
    pub object: String,
    /// What its bytes, or the part of them that is meant, should hash to.
    pub expected: Digest,
    /// What they hash to; none if the object is not there.
    pub found: Option<Digest>,
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { remote, object, expected, found } = self;
        match found {
            Some(found) => {
                write!(
                    f,
                    "the remote `{remote}` has wrong bytes in {object}: they should be {expected} and are {found}"
                )
            }
            None => write!(f, "the remote `{remote}` lacks {object}, which one of its keys stands on"),
        }
    }
}

/// An artifact that came.
#[derive(Debug)]
pub struct Fetched {
    /// From where.
    pub remote: String,
    /// What is known of its key.
    pub record: Record,
    /// Blobs that are new here. They have their names, and are to be synced before the index learns of them.
    pub new_blobs: Vec<BlobEvidence>,
    /// Bytes that came.
    pub bytes: u64,
}

/// What became of an artifact on one remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The remote.
    pub remote: String,
    /// Bytes that went there; none if all was there.
    pub bytes: u64,
    /// Something was not there before.
    pub is_new: bool,
    /// The key is there with another artifact, which it keeps.
    pub other: Option<Digest>,
}

/// Why something did not come or go.
#[derive(Debug)]
enum Trouble {
    /// The remote does not answer, or says no.
    Remote(String),
    /// What it has is not what it should be.
    Wrong(Wrong),
    /// The store of this machine.
    Store(StoreError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Store(error)
    }
}

impl From<FsError> for Trouble {
    fn from(error: FsError) -> Self {
        Trouble::Store(error.into())
    }
}

impl Remotes {
    /// These remotes, of the project at `root`. None of them is looked at before it is asked for something.
    pub fn new(remotes: &[Remote], root: &Path, store: &Store) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let runtime = runtime.map_err(|e| Failure::environment(format!("cannot start threads for remotes: {e}")))?;
        let places = remotes.iter().map(|remote| Arc::new(Place::new(remote, root))).collect();
        let blobs = Arc::new(Semaphore::new(BLOBS_AT_ONCE));
        let shared = Shared { places, store: store.clone(), blobs, turns: Turns::default() };
        Ok(Self { shared: Arc::new(shared), runtime: Some(runtime) })
    }

    /// Whether artifacts can be taken to one of them.
    pub fn take_anything(&self) -> bool {
        self.shared.places.iter().any(|place| place.remote.access == Access::ReadWrite)
    }

    /// Brings what is wanted from the first remote that has it.
    pub fn fetch(&self, wanted: Wanted, hear: Hear) {
        let shared = self.shared.clone();
        self.runtime().spawn(async move {
            let last = fetch::fetch(&shared, &wanted, &hear).await;
            hear(last.map_or_else(Heard::Failed, Heard::Fetched));
        });
    }

    /// Takes the artifact of a key to all remotes that can be written to; `again` also what is there already.
    pub fn send(&self, key: Digest, row: KeyRow, again: bool, hear: Hear) {
        let shared = self.shared.clone();
        self.runtime().spawn(async move {
            let last = send::send(&shared, &key, &row, again, &hear).await;
            hear(last.map_or_else(Heard::Failed, Heard::Sent));
        });
    }

    /// Asks each remote for something that is not there: the names, and why one cannot be used.
    pub fn try_all(&self) -> Vec<(String, Option<String>)> {
        let tried = self.shared.places.iter().map(|place| {
            let place = place.clone();
            self.runtime().spawn(async move {
                let nothing = Digest::of(b"effai doctor");
                let why = match place.small(&layout::key(&nothing)).await {
                    Ok(_) | Err(Trouble::Wrong(_)) => None,
                    Err(Trouble::Remote(why)) => Some(why),
                    Err(Trouble::Store(error)) => Some(error.to_string()),
                };
                (place.remote.name.clone(), why)
            })
        });
        let tried: Vec<_> = tried.collect();
        tried.into_iter().filter_map(|task| self.runtime().block_on(task).ok()).collect()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the end")
    }
}

impl Drop for Remotes {
    /// What nobody waits for any more ends where it is: a request that hangs holds up nothing.
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// One at a time for each digest: what two want is brought, or taken, once.
#[derive(Default)]
struct Turns {
    turns: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Turns {
    async fn of(&self, digest: &Digest) -> OwnedMutexGuard<()> {
        let turn = self.turns.lock().expect("no panic holds this").entry(*digest).or_default().clone();
        turn.lock_owned().await
    }
}

/// Work on the disk, on a thread that others do not wait for.
fn on_disk<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}
