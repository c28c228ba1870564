//! What actions keep of their work until they have ended well: `.effai/checkpoints/KEY/`.
//!
//! One that was killed or failed finds its directory again when its key runs next. It goes when the key's artifact is
//! written down, and when nobody has come back to it for a month.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::Engine;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::util::fs::{self, FsError};

/// How long one is kept that nothing was written to.
const KEPT: Duration = Duration::from_secs(30 * 86_400);

/// The directory of a key.
pub(super) fn dir(root: &Path, key: &Digest) -> PathBuf {
    all(root).join(key.to_string())
}

/// Takes the directories of keys away, where there are any.
pub(super) fn forget<'a>(root: &Path, keys: impl IntoIterator<Item = &'a Digest>) -> Result<(), FsError> {
    if !all(root).exists() {
        return Ok(());
    }
    keys.into_iter().map(|key| dir(root, key)).filter(|dir| dir.exists()).try_for_each(|dir| fs::remove_dir_all(&dir))
}

/// Takes away those whose keys have artifacts, which a killed build may have left, and old ones. To be called when no
/// other build of the project runs.
pub(super) fn sweep(engine: &Engine) -> Result<(), Failure> {
    for dir in fs::list(&all(&engine.root)).unwrap_or_default() {
        let key = dir.file_name().and_then(|name| name.to_str()?.parse::<Digest>().ok());
        let is_done = match key {
            Some(key) => engine.store.index.artifact(&key)?.is_some(),
            None => true,
        };
        let is_old = || {
            let written = dir.metadata().and_then(|metadata| metadata.modified()).ok();
            written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > KEPT)
        };
        if is_done || is_old() {
            fs::remove_dir_all(&dir)?;
        }
    }
    Ok(())
}

fn all(root: &Path) -> PathBuf {
    root.join(".effai/checkpoints")
}
