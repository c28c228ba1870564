//! `out/LABEL/`: what was asked for, where people look for it.
//!
//! What a user edits there never reaches a build. It is noticed, said, and kept: before other bytes take
//! its place it is moved to `.effai/edited/`.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::Engine;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::plan::{Index, Label};
use crate::store::{Placed, Purpose, StoreError};
use crate::util::fs;

/// What delivering did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was there already.
    There,
    /// It was put there.
    Placed,
    /// It is there, but for these files, which somebody edited; they stay.
    Edited(Vec<PathBuf>),
    /// It was put there; edited files were moved to this directory first.
    PlacedAside(PathBuf),
}

/// What was done, and the files that were placed.
pub type Delivered = (Delivery, Vec<Placed>);

impl Engine {
    /// Where a target's artifact is put when it is asked for.
    pub fn output_dir(&self, label: &Label) -> PathBuf {
        self.root.join("out").join(label.as_str())
    }

    /// Whether `out/LABEL/` holds an artifact, as it was placed. An engine that stays looks once: what is edited or
    /// deleted there later is no build's business until another process builds, or it has a new artifact.
    pub fn lies_in_out(&mut self, index: Index, artifact: &Digest) -> bool {
        if self.in_place.contains(&index) && self.outputs.get(&index).is_some_and(|(lies, _)| lies == artifact) {
            return true;
        }
        let dir = self.output_dir(&self.label(index));
        let holds = |placed: &[Placed]| placed.iter().all(|p| matches!(look(&dir, p), Look::AsPlaced));
        let lies = self.outputs.get(&index).is_some_and(|(lies, placed)| lies == artifact && holds(placed));
        if lies && self.options.resident {
            self.in_place.insert(index);
        }
        lies
    }

    /// Makes `out/LABEL/` hold an artifact. The inner result is a store that lacks bytes. What was placed is in the
    /// list, which the caller records.
    pub fn deliver(&mut self, index: Index, artifact: &Digest) -> Result<Result<Delivered, StoreError>, Failure> {
        let label = self.label(index);
        let dir = self.output_dir(&label);
        if self.lies_in_out(index, artifact) {
            return Ok(Ok((Delivery::There, Vec::new())));
        }
        let before = self.record.outputs(&label)?;
        let same = !before.is_empty() && before.iter().all(|(a, _)| a == artifact);
        let mut edited = Vec::new();
        let mut missing = false;
        for (_, placed) in &before {
            match look(&dir, placed) {
                Look::AsPlaced => {}
                Look::Edited => edited.push(placed.path.clone()),
                Look::Missing => missing = true,
            }
        }
        if same && !missing {
            if edited.is_empty() {
                self.outdated = true;
                self.outputs.insert(index, (*artifact, before.into_iter().map(|(_, p)| p).collect()));
                return Ok(Ok((Delivery::There, Vec::new())));
            }
            return Ok(Ok((Delivery::Edited(edited), Vec::new())));
        }
        self.begin_changes();
        self.outputs.remove(&index);
        self.in_place.remove(&index);
        let staging = self.root.join(".effai/scratch").join(format!("deliver-{}", std::process::id()));
        fs::remove_dir_all(&staging)?;
        let mut placed = match self.store.blobs.materialise(&self.store.index, artifact, &staging, Purpose::Output) {
            Ok(placed) => placed,
            Err(error) if error.is_repairable() => return Ok(Err(error)),
            Err(error) => return Err(error.into()),
        };
        let aside = self.clear(&label, &dir, &before.into_iter().map(|(_, p)| p).collect::<Vec<_>>())?;
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(&staging, &dir)?;
        placed.sort_by(|a, b| a.path.cmp(&b.path));
        self.outputs.insert(index, (*artifact, placed.clone()));
        Ok(Ok((aside.map_or(Delivery::Placed, Delivery::PlacedAside), placed)))
    }

    /// Takes the old files away; what is not as it was placed is moved aside and kept.
    fn clear(&self, label: &Label, dir: &Path, before: &[Placed]) -> Result<Option<PathBuf>, Failure> {
        if !dir.exists() {
            return Ok(None);
        }
        let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
        let aside = self.root.join(".effai/edited").join(label.as_str()).join(stamp);
        let mut moved = false;
        for entry in WalkDir::new(dir).into_iter().filter_map(Result::ok).filter(|e| !e.file_type().is_dir()) {
            let relative = entry.path().strip_prefix(dir).expect("walked from there");
            let ours = before.iter().find(|p| p.path == relative);
            if ours.is_some_and(|placed| matches!(look(dir, placed), Look::AsPlaced)) {
                continue;
            }
            // Placed by a build that was killed before it could say so: the store has the bytes.
            let digest = Digest::of_file(entry.path()).ok().filter(|_| entry.file_type().is_file());
            if ours.is_none() && digest.is_some_and(|(digest, _)| self.store.blobs.has(&digest)) {
                continue;
            }
            let to = aside.join(relative);
            fs::create_dir_all(to.parent().expect("below the directory"))?;
            fs::rename(entry.path(), &to)?;
            moved = true;
        }
        fs::remove_dir_all(dir)?;
        Ok(moved.then_some(aside))
    }
}

enum Look {
    AsPlaced,
    Edited,
    Missing,
}

fn look(dir: &Path, placed: &Placed) -> Look {
    use std::os::unix::fs::MetadataExt;
    match dir.join(&placed.path).symlink_metadata() {
        Err(_) => Look::Missing,
        Ok(m) if m.len() == placed.size && m.mtime() * 1_000_000_000 + m.mtime_nsec() == placed.mtime_ns => {
            Look::AsPlaced
        }
        Ok(_) => Look::Edited,
    }
}
