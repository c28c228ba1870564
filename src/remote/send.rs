//! From the store to a remote: large files, then the artifact's object, then the key. What is there is not sent again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::{MultipartUpload, PutPayload};
use tokio::task::{JoinError, JoinSet};

use super::place::Place;
use super::{Hear, Heard, Record, Sent, Shared, Trouble, fetch, layout, on_disk};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::recipe::remote::Access;
use crate::store::{KeyRow, StoreError, Tree};
use crate::util::fs::{self, FsError};

/// What is larger than this is sent in parts of so many bytes. Servers take 5 MiB and more, and the last part as it is.
const PART_BYTES: u64 = 8 << 20;

/// No server takes more parts of one object.
const PARTS_MAX: u64 = 10_000;

/// For so long it is tried to take back what went of an object.
const ABORT_MAX: Duration = Duration::from_secs(2);

/// Takes the artifact of a key to every remote that can be written to and still answers.
pub(super) async fn send(
    shared: &Arc<Shared>,
    key: &Digest,
    row: &KeyRow,
    again: bool,
    hear: &Hear,
) -> Result<Vec<Sent>, Failure> {
    let mut sent = Vec::new();
    for place in shared.places.iter().filter(|place| place.remote.access == Access::ReadWrite) {
        if !place.is_in() {
            continue;
        }
        match to(shared, place, key, row, again, hear).await {
            Ok(one) => sent.push(one),
            Err(Trouble::Remote(why)) => place.leave_out(why).into_iter().for_each(|out| hear(Heard::LeftOut(out))),
            Err(Trouble::Wrong(wrong)) => hear(Heard::Wrong(wrong)),
            Err(Trouble::Store(error)) => return Err(Failure::from(error).within(&row.label)),
        }
    }
    Ok(sent)
}

async fn to(
    shared: &Arc<Shared>,
    place: &Arc<Place>,
    key: &Digest,
    row: &KeyRow,
    again: bool,
    hear: &Hear,
) -> Result<Sent, Trouble> {
    let before = fetch::record(place, key).await?;
    let other = before.as_ref().map(|record| record.artifact).filter(|artifact| *artifact != row.artifact);
    let mut sent = Sent { remote: place.remote.name.clone(), bytes: 0, is_new: false, other };
    if before.is_some_and(|record| record.artifact == row.artifact) && !again {
        hear(Heard::Progress { done: row.size, total: row.size });
        return Ok(sent);
    }
    let going = Arc::new(Artifact {
        shared: shared.clone(),
        place: place.clone(),
        digest: row.artifact,
        total: row.size,
        again,
        done: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        is_new: AtomicBool::new(false),
        hear: hear.clone(),
    });
    going.go().await?;
    if other.is_none() {
        let record = serde_json::to_vec(&Record::of(row)).expect("a record is plain");
        place.put(&layout::key(key), record.into()).await?;
        going.is_new.store(true, Ordering::Relaxed);
    }
    sent.bytes = going.bytes.load(Ordering::Relaxed);
    sent.is_new = going.is_new.load(Ordering::Relaxed);
    Ok(sent)
}

/// An artifact that is being sent.
struct Artifact {
    shared: Arc<Shared>,
    place: Arc<Place>,
    digest: Digest,
    /// Bytes of its files.
    total: u64,
    /// What is there is sent all the same.
    again: bool,
    /// Bytes that are there.
    done: AtomicU64,
    /// Those that went.
    bytes: AtomicU64,
    is_new: AtomicBool,
    hear: Hear,
}

impl Artifact {
    async fn go(self: &Arc<Self>) -> Result<(), Trouble> {
        let tree = on_disk(|| self.shared.store.blobs.tree(&self.digest))?;
        let mut blobs = JoinSet::new();
        for (digest, size) in layout::large(&tree).into_iter().map(|entry| (entry.digest, entry.size)) {
            let this = self.clone();
            blobs.spawn(async move { this.blob(digest, size).await });
        }
        while let Some(ended) = blobs.join_next().await {
            ended.expect("sending a blob does not panic")?;
        }
        let _turn = self.place.turns.of(&self.digest).await;
        let (object, size) = (layout::artifact(&self.digest), layout::object_bytes(&tree));
        if !self.is_there(&object, size).await? {
            let source = on_disk(|| Source::of_artifact(self, &tree))?;
            self.send(&object, source, size).await?;
        }
        Ok(())
    }

    async fn blob(&self, digest: Digest, size: u64) -> Result<(), Trouble> {
        let _turn = self.place.turns.of(&digest).await;
        let object = layout::blob(&digest);
        if self.is_there(&object, size).await? {
            self.is_done(size);
            return Ok(());
        }
        let _permit = self.shared.blobs.acquire().await.expect("it is never closed");
        let source = on_disk(|| Ok::<_, StoreError>(Source::of_file(self.sound(&digest)?)))?;
        self.send(&object, source, size).await
    }

    /// Whether an object is there and as long as it should be: one that was cut off is sent anew.
    async fn is_there(&self, object: &str, size: u64) -> Result<bool, Trouble> {
        Ok(!self.again && self.place.size(object).await? == Some(size))
    }

    /// A blob's file, whose bytes are what its name says: nothing else is sent.
    fn sound(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        self.shared.store.blobs.sound(&self.shared.store.index, digest)
    }

    /// Sends an object, in parts where it is large and the server takes them. It has its name once all of it is there.
    async fn send(&self, object: &str, mut source: Source, size: u64) -> Result<(), Trouble> {
        let upload = if size > PART_BYTES { self.place.put_in_parts(object).await? } else { None };
        match upload {
            Some(mut upload) => {
                if let Err(trouble) = self.parts(&mut *upload, &mut source, size).await {
                    // What went is of no use to anybody; a server that is gone keeps it until it forgets it.
                    let _ = tokio::time::timeout(ABORT_MAX, upload.abort()).await;
                    return Err(trouble);
                }
            }
            None => {
                let bytes = on_disk(|| source.next(size))?;
                self.place.put(object, bytes).await?;
                self.went(size);
            }
        }
        self.is_new.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn parts(&self, upload: &mut dyn MultipartUpload, source: &mut Source, size: u64) -> Result<(), Trouble> {
        let part_bytes = PART_BYTES.max(size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20));
        let mut parts = JoinSet::new();
        let mut left = size;
        while left > 0 {
            // Read when its turn has come, so that no more is held than goes.
            let permit = self.place.load().await;
            let bytes = on_disk(|| source.next(part_bytes.min(left)))?;
            let length = bytes.len() as u64;
            left -= length;
            let part = upload.put_part(PutPayload::from_bytes(bytes));
            parts.spawn(async move {
                let _permit = permit;
                part.await.map(|()| length)
            });
            while let Some(ended) = parts.try_join_next() {
                self.part_went(ended)?;
            }
        }
        while let Some(ended) = parts.join_next().await {
            self.part_went(ended)?;
        }
        upload.complete().await.map(drop).map_err(|error| self.place.trouble_of_send(&error))
    }

    fn part_went(&self, ended: Result<object_store::Result<u64>, JoinError>) -> Result<(), Trouble> {
        let went = ended.expect("sending does not panic").map_err(|error| self.place.trouble_of_send(&error))?;
        self.went(went);
        Ok(())
    }

    fn went(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.is_done(bytes);
    }

    fn is_done(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.hear)(Heard::Progress { done: done.min(self.total), total: self.total });
    }
}

/// The bytes of an object that is sent: some of its own, then files.
struct Source {
    own: Bytes,
    /// In order; each is opened when it is read.
    files: std::vec::IntoIter<PathBuf>,
    open: Option<(PathBuf, File)>,
}

impl Source {
    fn of_file(path: PathBuf) -> Self {
        Self { own: Bytes::new(), files: vec![path].into_iter(), open: None }
    }

    /// An artifact's object: the head, the tree, the small files.
    fn of_artifact(artifact: &Artifact, tree: &Tree) -> Result<Self, StoreError> {
        let text = tree.to_bytes();
        let own = [layout::head(text.len()).as_bytes(), &text].concat().into();
        let files = layout::small(tree).into_iter().map(|entry| artifact.sound(&entry.digest));
        Ok(Self { own, files: files.collect::<Result<Vec<_>, _>>()?.into_iter(), open: None })
    }

    /// The next bytes, so many of them. A file may have been cut since it was looked at.
    fn next(&mut self, bytes: u64) -> Result<Bytes, FsError> {
        let mut taken = Vec::with_capacity(bytes as usize);
        let own = self.own.split_to(self.own.len().min(bytes as usize));
        taken.extend_from_slice(&own);
        while (taken.len() as u64) < bytes {
            let (path, mut file) = match self.open.take() {
                Some(open) => open,
                None => match self.files.next() {
                    Some(path) => open(path)?,
                    None => return Err(cut()),
                },
            };
            let left = bytes - taken.len() as u64;
            let read = fs::at("read", &path, file.by_ref().take(left).read_to_end(&mut taken))?;
            if read as u64 == left {
                self.open = Some((path, file));
            }
        }
        Ok(taken.into())
    }
}

fn open(path: PathBuf) -> Result<(PathBuf, File), FsError> {
    let file = fs::open(&path)?;
    Ok((path, file))
}

fn cut() -> FsError {
    let source = std::io::ErrorKind::UnexpectedEof.into();
    FsError { attempt: "read the rest of", path: Path::new("a blob").to_owned(), source }
}
