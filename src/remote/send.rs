//! From the store to a remote: large files, then the artifact's object, then the key. What is there is not sent again.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::multipart::PartId;
use object_store::{MultipartUpload, PutPayload};
use tokio::task::{JoinError, JoinSet};

use super::place::Place;
use super::upload::{Upload, is_unknown};
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

/// Where it is written down what went of large objects, below the store's root.
const UPLOADS: &str = "uploads";

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
            self.send(&object, &|| Source::of_artifact(self, &tree), size).await?;
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
        self.send(&object, &|| Ok(Source::of_file(self.sound(&digest)?)), size).await
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
    async fn send(&self, object: &str, open: &Open<'_>, size: u64) -> Result<(), Trouble> {
        let part_bytes = PART_BYTES.max(size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20));
        if size <= PART_BYTES || !self.by_upload(object, open, size, part_bytes).await? {
            let upload = if size > PART_BYTES { self.place.put_in_parts(object).await? } else { None };
            let mut source = on_disk(open)?;
            match upload {
                Some(mut upload) => {
                    if let Err(trouble) = self.parts(&mut *upload, &mut source, size, part_bytes).await {
                        // What went is of no use to anybody.
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
        }
        self.is_new.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Sends an object so that it can be gone on with. Says whether the server has such a way.
    async fn by_upload(&self, object: &str, open: &Open<'_>, size: u64, part_bytes: u64) -> Result<bool, Trouble> {
        let dir = self.shared.store.root().join(UPLOADS);
        loop {
            let Some(mut upload) = self.place.upload(&dir, object, (size, part_bytes)).await? else { return Ok(false) };
            let source = on_disk(open)?;
            let Err(error) = self.rest(&mut upload, source, size, part_bytes).await? else { return Ok(true) };
            if !(upload.is_taken_up && is_unknown(&error)) {
                return Err(self.place.trouble_of_send(&error));
            }
            // The server has forgotten it, or somebody else has ended it.
            upload.forget();
            if self.is_there(object, size).await? {
                self.is_done(size);
                return Ok(true);
            }
        }
    }

    /// Sends the parts of an upload that are not there, and gives the object its name; or the server's first error.
    async fn rest(
        &self,
        upload: &mut Upload,
        mut source: Source,
        size: u64,
        part_bytes: u64,
    ) -> Result<object_store::Result<()>, Trouble> {
        let mut parts = JoinSet::new();
        let (mut left, mut number, mut first) = (size, 0, Ok(()));
        while left > 0 && first.is_ok() {
            let length = part_bytes.min(left);
            // Read when its turn has come, so that no more is held than goes.
            let permit = self.place.load().await;
            let bytes = on_disk(|| source.next(length))?;
            if upload.has(number) {
                self.is_done(length);
            } else {
                let part = upload.send(number, bytes);
                parts.spawn(async move {
                    let _permit = permit;
                    (number, length, part.await)
                });
            }
            (left, number) = (left - length, number + 1);
            while let Some(ended) = parts.try_join_next() {
                first = first.and(self.is_kept(upload, ended)?);
            }
        }
        // Those that are on their way may still come there, whatever became of the others.
        while let Some(ended) = parts.join_next().await {
            first = first.and(self.is_kept(upload, ended)?);
        }
        match first {
            Ok(()) => Ok(upload.complete().await),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Writes down that a part went, if it did.
    fn is_kept(
        &self,
        upload: &mut Upload,
        ended: Result<(usize, u64, object_store::Result<PartId>), JoinError>,
    ) -> Result<object_store::Result<()>, Trouble> {
        let (number, length, part) = ended.expect("sending does not panic");
        match part {
            Ok(part) => on_disk(|| upload.went(number, part))?,
            Err(error) => return Ok(Err(error)),
        }
        self.went(length);
        Ok(Ok(()))
    }

    async fn parts(
        &self,
        upload: &mut dyn MultipartUpload,
        source: &mut Source,
        size: u64,
        part_bytes: u64,
    ) -> Result<(), Trouble> {
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

/// How the bytes of an object that is to be sent are opened.
type Open<'a> = dyn Fn() -> Result<Source, StoreError> + Sync + 'a;

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
