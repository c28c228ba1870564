//! A large object on its way in parts. What went is written down here, in the store, so that a push that was stopped goes on:
//! an object's bytes follow from its name, so a part that is there is the part that would be sent.
//!
//! S3, GCS and Azure have such uploads; what was begun there and never ended they keep until a rule of the bucket's ends it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as ObjectPath;
use object_store::{Error, PutPayload};
use serde::{Deserialize, Serialize};

use crate::fingerprint::Digest;
use crate::util::fs::{self, FsError};

/// Of what is written down.
const VERSION: u32 = 1;

/// An upload of one object.
pub(super) struct Upload {
    store: Arc<dyn MultipartStore>,
    path: ObjectPath,
    file: PathBuf,
    kept: Kept,
    /// Another process, or this one before, began it.
    pub(super) is_taken_up: bool,
}

/// What is written down of it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    version: u32,
    /// Which server, and where on it.
    remote: String,
    object: String,
    bytes: u64,
    part_bytes: u64,
    /// The server's name for the upload.
    id: String,
    /// What the server said of each part that is there, by its number.
    parts: BTreeMap<usize, String>,
}

/// What is to be sent.
pub(super) struct Object<'a> {
    /// The remote's address, as uploads are told apart by it.
    pub(super) remote: String,
    /// Its path there.
    pub(super) name: &'a str,
    pub(super) bytes: u64,
    pub(super) part_bytes: u64,
}

impl Upload {
    /// Goes on with an upload that was stopped, or begins one. `dir` holds what is written down.
    pub(super) async fn open(
        store: Arc<dyn MultipartStore>,
        path: ObjectPath,
        dir: &Path,
        object: Object<'_>,
    ) -> Result<Self, Error> {
        let name = Digest::of(format!("{}\n{}", object.remote, object.name).as_bytes());
        let file = dir.join(format!("{name}.json"));
        let kept = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
        let is_of_it = |kept: &Kept| {
            (kept.version, kept.bytes, kept.part_bytes) == (VERSION, object.bytes, object.part_bytes)
                && (kept.remote.as_str(), kept.object.as_str()) == (object.remote.as_str(), object.name)
        };
        if let Some(kept) = kept.filter(is_of_it) {
            return Ok(Self { store, path, file, kept, is_taken_up: true });
        }
        let id = store.create_multipart(&path).await?;
        let Object { remote, name, bytes, part_bytes } = object;
        let (object, parts) = (name.to_owned(), BTreeMap::new());
        let kept = Kept { version: VERSION, remote, object, bytes, part_bytes, id, parts };
        Ok(Self { store, path, file, kept, is_taken_up: false })
    }

    /// Whether a part is there.
    pub(super) fn has(&self, part: usize) -> bool {
        self.kept.parts.contains_key(&part)
    }

    /// Sends a part; what comes of it is for [`Upload::went`].
    pub(super) fn send(&self, part: usize, bytes: Bytes) -> impl Future<Output = Result<PartId, Error>> + use<> {
        let (store, path, id) = (self.store.clone(), self.path.clone(), self.kept.id.clone());
        async move { store.put_part(&path, &id, part, PutPayload::from_bytes(bytes)).await }
    }

    /// Writes down that a part is there.
    pub(super) fn went(&mut self, part: usize, id: PartId) -> Result<(), FsError> {
        self.kept.parts.insert(part, id.content_id);
        fs::write_atomic(&self.file, &serde_json::to_vec(&self.kept).expect("it is plain"))
    }

    /// Gives the object its name, once all parts are there.
    pub(super) async fn complete(&self) -> Result<(), Error> {
        let parts = self.kept.parts.values().map(|id| PartId { content_id: id.clone() }).collect();
        self.store.complete_multipart(&self.path, &self.kept.id, parts).await?;
        self.forget();
        Ok(())
    }

    /// Writes nothing down of it any more: it came to its end, or the server knows nothing of it.
    pub(super) fn forget(&self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Whether a server says that it knows no such upload: some of them by refusing it.
pub(super) fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. } | Error::PermissionDenied { .. })
}
