//! From a remote into the store: the key's record, its artifact's object, then the large files.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::{JoinHandle, JoinSet};

use super::place::{Coming, Part, Place};
use super::{Fetched, Hear, Heard, Record, Shared, Trouble, Wanted, Wrong, layout, on_disk};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::recipe::remote::Remote;
use crate::store::{Arrival, Arrived, BlobEvidence, Entry, StoreError, Tree};

/// A large blob comes in parts of so many bytes: large enough for the way there and back not to count.
const PART_BYTES: u64 = 8 << 20;

/// Parts of one blob that are on their way at once; they are written in order.
const PARTS_AT_ONCE: usize = 3;

/// Brings what is wanted from the first remote that has it.
pub(super) async fn fetch(shared: &Arc<Shared>, wanted: &Wanted, hear: &Hear) -> Result<Option<Box<Fetched>>, Failure> {
    for place in &shared.places {
        if !place.is_in() {
            continue;
        }
        match from(shared, place, wanted, hear).await {
            Ok(None) => {}
            Ok(fetched) => return Ok(fetched),
            Err(Trouble::Remote(why)) => place.leave_out(why).into_iter().for_each(|out| hear(Heard::LeftOut(out))),
            Err(Trouble::Wrong(wrong)) => hear(Heard::Wrong(wrong)),
            Err(Trouble::Store(error)) => return Err(error.into()),
        }
    }
    Ok(None)
}

async fn from(
    shared: &Arc<Shared>,
    place: &Arc<Place>,
    wanted: &Wanted,
    hear: &Hear,
) -> Result<Option<Box<Fetched>>, Trouble> {
    let record = match wanted {
        Wanted::Key(key) => record(place, key).await?,
        Wanted::Artifact(row) => place.size(&layout::artifact(&row.artifact)).await?.map(|_| Record::of(row)),
    };
    let Some(record) = record else { return Ok(None) };
    let Remote { name, .. } = &place.remote;
    hear(Heard::Begun { remote: name.clone() });
    let coming = Arc::new(Artifact {
        shared: shared.clone(),
        place: place.clone(),
        digest: record.artifact,
        total: record.size,
        done: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        new_blobs: Mutex::default(),
        hear: hear.clone(),
    });
    coming.come().await?;
    let new_blobs = std::mem::take(&mut *coming.new_blobs.lock().expect("no panic holds this"));
    let bytes = coming.bytes.load(Ordering::Relaxed);
    Ok(Some(Box::new(Fetched { remote: name.clone(), record, new_blobs, bytes })))
}

/// What a remote has of a key; none also where it cannot be read, which is told.
pub(super) async fn record(place: &Place, key: &Digest) -> Result<Option<Record>, Trouble> {
    let object = layout::key(key);
    let Some(bytes) = place.small(&object).await? else { return Ok(None) };
    let read = (bytes.len() as u64 <= layout::RECORD_BYTES_MAX).then(|| serde_json::from_slice(&bytes).ok()).flatten();
    match read {
        Some(record) => Ok(Some(record)),
        None => Err(Trouble::Remote(format!("{object} is no record of a key"))),
    }
}

/// An artifact that is coming.
struct Artifact {
    shared: Arc<Shared>,
    place: Arc<Place>,
    digest: Digest,
    /// Bytes of its files, as the record has it.
    total: u64,
    /// Those that are here.
    done: AtomicU64,
    /// Those that came.
    bytes: AtomicU64,
    new_blobs: Mutex<Vec<BlobEvidence>>,
    hear: Hear,
}

impl Artifact {
    /// Brings all of it that the store has not.
    async fn come(self: &Arc<Self>) -> Result<(), Trouble> {
        let turn = self.shared.turns.of(&self.digest).await;
        let tree = match on_disk(|| self.tree_with_small_files())? {
            Some(tree) => tree,
            None => self.object().await?,
        };
        drop(turn);
        let mut blobs = JoinSet::new();
        for (digest, size) in layout::large(&tree).into_iter().map(|entry| (entry.digest, entry.size)) {
            let this = self.clone();
            blobs.spawn(async move { this.blob(digest, size).await });
        }
        while let Some(ended) = blobs.join_next().await {
            ended.expect("a blob's arrival does not panic")?;
        }
        Ok(())
    }

    /// The tree, if it and all the files that come with it are here.
    fn tree_with_small_files(&self) -> Result<Option<Tree>, StoreError> {
        if !self.is_here(&self.digest)? {
            return Ok(None);
        }
        let tree = match self.shared.store.blobs.tree(&self.digest) {
            Err(error) if error.is_repairable() => return Ok(None),
            tree => tree?,
        };
        for entry in layout::small(&tree) {
            if !self.is_here(&entry.digest)? {
                return Ok(None);
            }
        }
        self.is_done(layout::small(&tree).iter().map(|entry| entry.size).sum());
        Ok(Some(tree))
    }

    /// Whether a blob is in the store.
    fn is_here(&self, digest: &Digest) -> Result<bool, StoreError> {
        let believed = self.shared.store.blobs.believed(&self.shared.store.index, digest)?;
        self.note(believed.flatten());
        Ok(believed.is_some())
    }

    /// Reads the artifact's object: its tree and small files.
    async fn object(&self) -> Result<Tree, Trouble> {
        let object = layout::artifact(&self.digest);
        let wrong = |expected, found| Trouble::Wrong(self.wrong(&object, expected, found));
        let Some(coming) = self.place.stream(&object).await? else { return Err(wrong(self.digest, None)) };
        let mut reader = Reader { place: &self.place, coming, kept: Vec::new(), at: 0, bytes: &self.bytes };
        let head = reader.line().await?;
        let Some(tree_bytes) = layout::read_head(&head) else {
            return Err(wrong(self.digest, Some(Digest::of(&head))));
        };
        let text = reader.take(tree_bytes).await?;
        let found = Digest::of(&text);
        // What hashes to its name and is no tree was sent so.
        let tree = Tree::from_bytes(&text).ok().filter(|_| found == self.digest);
        let tree = tree.ok_or_else(|| wrong(self.digest, Some(found)))?;
        for entry in layout::small(&tree) {
            let bytes = reader.take(entry.size as usize).await?;
            let found = Digest::of(&bytes);
            if found != entry.digest {
                return Err(wrong(entry.digest, Some(found)));
            }
            on_disk(|| self.put(entry, &bytes))?;
            self.is_done(entry.size);
        }
        on_disk(|| {
            let is_here = self.is_here(&self.digest)?;
            if !is_here {
                self.note(Some(self.shared.store.blobs.put(&self.digest, &text)?));
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(tree)
    }

    fn put(&self, entry: &Entry, bytes: &[u8]) -> Result<(), StoreError> {
        if !self.is_here(&entry.digest)? {
            self.note(Some(self.shared.store.blobs.put(&entry.digest, bytes)?));
        }
        Ok(())
    }

    /// Brings a large blob.
    async fn blob(&self, digest: Digest, size: u64) -> Result<(), Trouble> {
        let _turn = self.shared.turns.of(&digest).await;
        if on_disk(|| self.is_here(&digest))? {
            self.is_done(size);
            return Ok(());
        }
        let _permit = self.shared.blobs.acquire().await.expect("it is never closed");
        let mut arrival = on_disk(|| self.shared.store.blobs.arrival(&digest))?;
        if arrival.bytes() > size {
            arrival.restart()?;
        }
        let goes_on = arrival.bytes() > 0;
        self.is_done(arrival.bytes());
        match self.pour(arrival, &digest, size).await? {
            // What an earlier attempt left may be what is wrong.
            Some(_) if goes_on => {
                let mut arrival = on_disk(|| self.shared.store.blobs.arrival(&digest))?;
                arrival.restart()?;
                self.done.fetch_sub(size, Ordering::Relaxed);
                match self.pour(arrival, &digest, size).await? {
                    Some(found) => Err(Trouble::Wrong(self.wrong(&layout::blob(&digest), digest, Some(found)))),
                    None => Ok(()),
                }
            }
            Some(found) => Err(Trouble::Wrong(self.wrong(&layout::blob(&digest), digest, Some(found)))),
            None => Ok(()),
        }
    }

    /// Brings what is missing of a blob. Gives the digest of what came if it is another.
    async fn pour(&self, mut arrival: Arrival, digest: &Digest, size: u64) -> Result<Option<Digest>, Trouble> {
        let object = layout::blob(digest);
        let mut parts: VecDeque<Task> = VecDeque::new();
        let mut next = arrival.bytes();
        loop {
            while parts.len() < PARTS_AT_ONCE && next < size {
                let range = next..size.min(next + PART_BYTES);
                next = range.end;
                let (place, object) = (self.place.clone(), object.clone());
                parts.push_back(Task(tokio::spawn(async move { place.part(&object, range).await })));
            }
            let Some(mut part) = parts.pop_front() else { break };
            match (&mut part.0).await.expect("asking does not panic")? {
                Part::Bytes { bytes, whole } => {
                    on_disk(|| arrival.write(&bytes))?;
                    self.came(bytes.len() as u64);
                    if whole != size {
                        // It cannot hash to its name: what it is is said by its beginning.
                        break;
                    }
                }
                Part::Missing => return Err(Trouble::Wrong(self.wrong(&object, *digest, None))),
                Part::Refused => {
                    parts.clear();
                    arrival.restart()?;
                    self.whole(&mut arrival, digest, size).await?;
                    break;
                }
            }
        }
        drop(parts);
        match on_disk(|| arrival.finish(&self.shared.store.blobs))? {
            Arrived::Wrong(found) => Ok(Some(found)),
            Arrived::Whole(evidence) => {
                self.note(Some(evidence));
                Ok(None)
            }
        }
    }

    /// Brings a blob in one piece, from a server that gives no parts.
    async fn whole(&self, arrival: &mut Arrival, digest: &Digest, size: u64) -> Result<(), Trouble> {
        let object = layout::blob(digest);
        let Some(mut coming) = self.place.stream(&object).await? else {
            return Err(Trouble::Wrong(self.wrong(&object, *digest, None)));
        };
        while let Some(bytes) = self.place.next(&mut coming).await? {
            if arrival.bytes() + bytes.len() as u64 > size {
                break;
            }
            on_disk(|| arrival.write(&bytes))?;
            self.came(bytes.len() as u64);
        }
        Ok(())
    }

    fn wrong(&self, object: &str, expected: Digest, found: Option<Digest>) -> Wrong {
        Wrong { remote: self.place.remote.name.clone(), object: object.to_owned(), expected, found }
    }

    fn note(&self, evidence: Option<BlobEvidence>) {
        self.new_blobs.lock().expect("no panic holds this").extend(evidence);
    }

    fn came(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.is_done(bytes);
    }

    fn is_done(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.hear)(Heard::Progress { done, total: self.total });
    }
}

/// A task that ends with who waits for it.
struct Task(JoinHandle<Result<Part, Trouble>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Bytes of an object, one stretch after the other.
struct Reader<'a> {
    place: &'a Place,
    coming: Coming,
    kept: Vec<u8>,
    /// What was read of `kept`.
    at: usize,
    /// Counts what comes.
    bytes: &'a AtomicU64,
}

impl Reader<'_> {
    /// The next line with its end, or what there is where no line has one.
    async fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        loop {
            let rest = &self.kept[self.at..];
            let end = rest.iter().take(layout::HEAD_BYTES_MAX).position(|byte| *byte == b'\n');
            if let Some(end) = end {
                return self.take(end + 1).await;
            }
            if rest.len() >= layout::HEAD_BYTES_MAX || !self.more().await? {
                return Ok(self.kept[self.at..].to_vec());
            }
        }
    }

    /// So many bytes; fewer where the object ends.
    async fn take(&mut self, bytes: usize) -> Result<Vec<u8>, Trouble> {
        while self.kept.len() - self.at < bytes && self.more().await? {}
        let end = self.kept.len().min(self.at + bytes);
        let taken = self.kept[self.at..end].to_vec();
        self.at = end;
        Ok(taken)
    }

    async fn more(&mut self) -> Result<bool, Trouble> {
        let Some(bytes) = self.place.next(&mut self.coming).await? else { return Ok(false) };
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.kept.drain(..self.at);
        self.at = 0;
        self.kept.extend_from_slice(&bytes);
        Ok(true)
    }
}
