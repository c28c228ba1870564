//! `out/LABEL/`: what was asked for, where people look for it.
//!
//! What a user edits there never reaches a build. It is noticed, said, and kept: before other bytes take
//! its place it is moved to `.effai/edited/`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::Engine;
use super::kept::Output;
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::fingerprint::evidence::{Place, Stat};
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

    /// Whether `out/LABEL/` holds an artifact, as it was placed: by the last look.
    pub fn lies_in_out(&self, index: Index, artifact: &Digest) -> bool {
        self.lies[index] && self.outputs[index].as_ref().is_some_and(|output| output.artifact == *artifact)
    }

    /// Whether delivering an artifact would place nothing: by the last look, or by the record where nothing was kept of it.
    pub fn is_in_out(&self, index: Index, artifact: &Digest) -> Result<bool, Failure> {
        if self.lies_in_out(index, artifact) {
            return Ok(true);
        }
        let label = self.label(index);
        let (dir, placed) = (self.output_dir(&label), self.record.outputs(&label)?);
        let is_there = |placed: &Placed| !matches!(look(&dir, placed), Look::Missing);
        Ok(!placed.is_empty() && placed.iter().all(|(of, placed)| of == artifact && is_there(placed)))
    }

    /// Makes `out/LABEL/` hold an artifact. The inner result is a store that lacks bytes. What was placed is in the
    /// list, which the caller records.
    pub fn deliver(&mut self, index: Index, artifact: &Digest) -> Result<Result<Delivered, StoreError>, Failure> {
        let label = self.label(index);
        let dir = self.output_dir(&label);
        self.look_at_outputs(&[index]);
        if self.lies_in_out(index, artifact) {
            return Ok(Ok((Delivery::There, Vec::new())));
        }
        let mut before = self.record.outputs(&label)?;
        let same = !before.is_empty() && before.iter().all(|(a, _)| a == artifact);
        let mut edited = Vec::new();
        let mut missing = false;
        let mut placed_unsaid = false;
        for (_, placed) in &mut before {
            match look(&dir, placed) {
                Look::AsPlaced => {}
                Look::Edited => match self.placed_unsaid(artifact, &dir, &placed.path) {
                    Some(as_it_is) if same => (*placed, placed_unsaid) = (as_it_is, true),
                    _ => edited.push(placed.path.clone()),
                },
                Look::Missing => missing = true,
            }
        }
        if same && !missing {
            if edited.is_empty() {
                self.outdated = true;
                let placed: Vec<Placed> = before.into_iter().map(|(_, placed)| placed).collect();
                self.outputs[index] = Some(Output { artifact: *artifact, placed: placed.clone() });
                self.lies[index] = true;
                return Ok(Ok((Delivery::There, if placed_unsaid { placed } else { Vec::new() })));
            }
            return Ok(Ok((Delivery::Edited(edited), Vec::new())));
        }
        self.begin_changes();
        self.outputs[index] = None;
        self.lies[index] = false;
        let staging = self.root.join(".effai/scratch").join(format!("deliver-{}", std::process::id()));
        fs::remove_dir_all(&staging)?;
        let mut placed = match self.store.blobs.materialise(&self.store.index, artifact, &staging, Purpose::Output) {
            Ok(placed) => placed,
            Err(error) => {
                fs::remove_dir_all(&staging)?;
                return if error.is_repairable() { Ok(Err(error)) } else { Err(error.into()) };
            }
        };
        // Of builds that deliver the same one after the other, not between each other's steps.
        let own = self.root.join(".effai");
        let turn = fs::open(&own)?;
        fs::at("lock", &own, turn.lock())?;
        let aside = self.clear(&label, &dir, &before.into_iter().map(|(_, p)| p).collect::<Vec<_>>())?;
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(&staging, &dir)?;
        placed.sort_by(|a, b| a.path.cmp(&b.path));
        self.outputs[index] = Some(Output { artifact: *artifact, placed: placed.clone() });
        self.lies[index] = true;
        Ok(Ok((aside.map_or(Delivery::Placed, Delivery::PlacedAside), placed)))
    }

    /// A file that does not look as the record says but holds the artifact's bytes: a build placed it and was killed
    /// before it could say so.
    fn placed_unsaid(&self, artifact: &Digest, dir: &Path, path: &Path) -> Option<Placed> {
        let tree = self.store.blobs.tree(artifact).ok()?;
        let entry = tree.entries().iter().find(|e| e.path == path)?;
        let full = dir.join(path);
        (content(&full)? == entry.digest).then(|| Placed::at(dir, path)).flatten()
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
            if content(entry.path()).is_some_and(|digest| self.store.blobs.has(&digest)) {
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

/// Whether all that was placed for a target of this name is there as it was placed.
pub(super) fn lies_as_placed(root: &Place<'_>, name: &str, output: Option<&Output>) -> bool {
    let mut path = PathBuf::with_capacity(64);
    output.is_some_and(|output| {
        output.placed.iter().all(|placed| {
            path.clear();
            path.extend([Path::new("out"), Path::new(name), &placed.path]);
            root.look_at_link(&path).is_some_and(|now| is_as_placed(&now, placed))
        })
    })
}

/// The digest of a file's bytes, or of where a link leads.
fn content(path: &Path) -> Option<Digest> {
    match path.read_link() {
        Ok(target) => Some(Digest::of(target.as_os_str().as_bytes())),
        Err(_) => path.is_file().then(|| Digest::of_file(path).ok())?.map(|(digest, _)| digest),
    }
}

enum Look {
    AsPlaced,
    Edited,
    Missing,
}

fn look(dir: &Path, placed: &Placed) -> Look {
    match dir.join(&placed.path).symlink_metadata() {
        Err(_) => Look::Missing,
        Ok(m) if is_as_placed(&Stat::of(&m), placed) => Look::AsPlaced,
        Ok(_) => Look::Edited,
    }
}

fn is_as_placed(now: &Stat, placed: &Placed) -> bool {
    now.size as u64 == placed.size && now.mtime_ns == placed.mtime_ns
}
