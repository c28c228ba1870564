//! Verification: everything the store holds, read again and compared with what names it; packs by what they give.
//!
//! Each problem is told once, with the file it is about and the labels of the keys that need it. Repair takes a
//! changed blob aside and forgets the keys that need what is gone; the next build makes it anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;

use super::blobs::StoreError;
use super::pack::Pack;
use super::walk::Blob;
use super::{KeyUse, Store};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::util::fs;

/// What is wrong with a file of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its bytes are not what its name says.
    Changed,
    /// Something names it and it is not there.
    Missing,
    /// A key takes it for a tree, and it is none.
    NotATree,
    /// It does not belong here: what a killed writer left, or a foreign file.
    Leftover,
    /// The index remembers how a blob looked that is not there.
    StaleRow,
}

impl Fault {
    /// Its name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Changed => "changed",
            Fault::Missing => "missing",
            Fault::NotATree => "not-a-tree",
            Fault::Leftover => "leftover",
            Fault::StaleRow => "stale-row",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub fault: Fault,
    /// Of which file.
    pub path: PathBuf,
    /// Its digest, of a blob.
    pub digest: Option<Digest>,
    /// The labels of the keys that need it.
    pub labels: BTreeSet<String>,
}

/// What verification found.
#[derive(Debug, Default)]
pub struct Checked {
    /// What is wrong, by path.
    pub problems: Vec<Problem>,
    /// Blobs read, packed ones among them.
    pub blobs: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Keys whose artifact is not whole.
    keys: Vec<Digest>,
    /// Those artifacts.
    pub artifacts: Vec<Digest>,
}

impl Store {
    /// Looks at everything; changes nothing. The caller holds the gate or has it closed; `leftovers` and `stale_rows`
    /// were listed while it was closed, since what a running build writes looks the same.
    pub fn verify(
        &self,
        standing: &[Digest],
        leftovers: Vec<PathBuf>,
        stale_rows: Vec<Digest>,
    ) -> Result<Checked, Failure> {
        // Keys before blobs: what a key names was there before the key.
        let keys = self.index.keys()?;
        let blobs = self.blobs.list()?;
        let mut there: HashSet<Digest> = blobs.iter().map(|b| b.digest).collect();
        // The pack of a blob that is whole again stands for nothing.
        let packs: Vec<Blob> = self.blobs.list_packs()?.into_iter().filter(|p| !there.contains(&p.digest)).collect();
        there.extend(packs.iter().map(|pack| pack.digest));
        let mut broken: HashMap<Digest, PathBuf> =
            blobs.par_iter().filter_map(|b| self.is_changed(b).transpose()).collect::<Result<_, _>>()?;
        let broken_packs = packs.par_iter().filter_map(|p| self.is_pack_changed(p, &broken).transpose());
        let broken_packs: Vec<_> = broken_packs.collect::<Result<_, Failure>>()?;
        broken.extend(broken_packs);
        let mut found = Found { store: self, there, broken, problems: BTreeMap::new() };
        for digest in found.broken.clone().into_keys() {
            found.add(Fault::Changed, digest, None);
        }
        let bytes = blobs.iter().chain(&packs).map(|b| b.size).sum();
        let mut checked = Checked { blobs: blobs.len() + packs.len(), bytes, ..Checked::default() };
        let mut artifacts: BTreeMap<Digest, Vec<&KeyUse>> = standing.iter().map(|a| (*a, vec![])).collect();
        for key in &keys {
            artifacts.entry(key.artifact).or_default().push(key);
        }
        for (artifact, keys) in artifacts {
            if !found.is_whole(&artifact, &keys)? {
                checked.artifacts.push(artifact);
                checked.keys.extend(keys.iter().map(|k| k.key));
            }
        }
        for digest in stale_rows {
            if !found.there.contains(&digest) && !found.problems.contains_key(&self.blobs.path(&digest)) {
                found.add(Fault::StaleRow, digest, None);
            }
        }
        for path in leftovers {
            let labels = BTreeSet::new();
            found.problems.insert(path.clone(), Problem { fault: Fault::Leftover, path, digest: None, labels });
        }
        checked.problems = found.problems.into_values().collect();
        Ok(checked)
    }

    /// A blob that is not what it should be, and its file.
    fn is_changed(&self, blob: &Blob) -> Result<Option<(Digest, PathBuf)>, fs::FsError> {
        let path = self.blobs.path(&blob.digest);
        match Digest::of_file(&path) {
            Ok((digest, _)) => Ok((digest != blob.digest).then_some((blob.digest, path))),
            // A build put it aside meanwhile: whoever needs it finds it missing.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Some((blob.digest, path))),
            // A disk that cannot read a sector is what this looks for; anything else is no word on the blob.
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(Some((blob.digest, path))),
            Err(source) => Err(fs::FsError { attempt: "read", path, source }),
        }
    }

    /// A pack that does not give what it should, and its file. Where a blob that it names is broken it is too, whichever
    /// part of that it takes: repair moves all of it away.
    fn is_pack_changed(
        &self,
        pack: &Blob,
        broken: &HashMap<Digest, PathBuf>,
    ) -> Result<Option<(Digest, PathBuf)>, Failure> {
        let path = self.blobs.pack_path(&pack.digest);
        let named = Pack::open(&path)?.map(|(pack, _)| pack.bases()).unwrap_or_default();
        let is_good = named.iter().all(|base| !broken.contains_key(base))
            && self.blobs.assemble(&pack.digest, &path, &mut |_| Ok(()))?;
        Ok((!is_good).then_some((pack.digest, path)))
    }

    /// Takes what is wrong out of the way and forgets what stood on it. Only while the gate is closed.
    pub fn repair(&self, checked: &Checked) -> Result<(), Failure> {
        let gone: Vec<Digest> = checked.problems.iter().filter_map(|p| p.digest).collect();
        self.index.forget_all(&checked.keys, &gone)?;
        for problem in &checked.problems {
            match (problem.fault, &problem.digest) {
                (Fault::Changed | Fault::NotATree, Some(digest)) => {
                    if let StoreError::Corrupt { path, .. } = self.blobs.put_aside(digest, &problem.path)
                        && path == problem.path
                    {
                        return Err(Failure::environment(format!("cannot move {} aside", path.display())));
                    }
                }
                (Fault::Leftover, _) => self.remove_leftover(&problem.path)?,
                _ => {}
            }
        }
        Ok(())
    }
}

struct Found<'a> {
    store: &'a Store,
    there: HashSet<Digest>,
    broken: HashMap<Digest, PathBuf>,
    problems: BTreeMap<PathBuf, Problem>,
}

impl Found<'_> {
    fn add(&mut self, fault: Fault, digest: Digest, keys: Option<&[&KeyUse]>) {
        let path = self.broken.get(&digest).cloned().unwrap_or_else(|| self.store.blobs.path(&digest));
        let new = || Problem { fault, path: path.clone(), digest: Some(digest), labels: BTreeSet::new() };
        let problem = self.problems.entry(path.clone()).or_insert_with(new);
        problem.labels.extend(keys.into_iter().flatten().map(|k| k.label.clone()));
    }

    /// Whether a blob is as it should be; if not, notes who needs it.
    fn is_good(&mut self, digest: &Digest, keys: &[&KeyUse]) -> bool {
        let fault = match (self.broken.contains_key(digest), self.there.contains(digest)) {
            (true, _) => Fault::Changed,
            (_, false) => Fault::Missing,
            _ => return true,
        };
        // What only a project stands on, and no key promises, is made again when it is needed.
        if fault == Fault::Changed || !keys.is_empty() {
            self.add(fault, *digest, Some(keys));
        }
        false
    }

    fn is_whole(&mut self, artifact: &Digest, keys: &[&KeyUse]) -> Result<bool, Failure> {
        if !self.is_good(artifact, keys) {
            return Ok(false);
        }
        let tree = match self.store.blobs.look_at_tree(artifact) {
            Ok(tree) => tree,
            Err(StoreError::BadTree { .. }) => {
                self.add(Fault::NotATree, *artifact, Some(keys));
                return Ok(false);
            }
            Err(error) if error.is_repairable() => {
                self.add(Fault::Missing, *artifact, Some(keys));
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let mut whole = true;
        for entry in tree.entries() {
            whole &= self.is_good(&entry.digest, keys);
        }
        Ok(whole)
    }
}
