//! Collection: packing blobs, forgetting keys, and deleting the blobs that nothing names any more.
//!
//! Where a size is asked for, blobs are packed first: that loses nothing. Then least recently used keys go. What a
//! [`Standing`] names stays, also where no key names it, and so does what a pack takes bytes from.
//!
//! The gate is closed, so no build is between a blob and the row that names it. Each step may be the last: a pack is on
//! the disk before its blob goes; keys are forgotten, on the disk, before their blobs go, and packs go before the blobs
//! they name. Killed in between, the store holds a blob and its pack, or blobs that nothing names, and the next
//! collection takes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;

use super::blobs::mtime_ns;
use super::index::KeyUse;
use super::pack::Pack;
use super::packing::{Candidate, PACKED_BYTES_MIN};
use super::walk::Blob;
use super::{Standing, Store, StoreError};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::util::fs;

/// What is to go, besides blobs that nothing names.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Pack blobs, and then forget keys, until the store is no larger.
    pub bytes_max: Option<u64>,
    /// Forget keys not used since then.
    pub used_since: Option<jiff::Timestamp>,
}

/// Whether blobs go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only say what would go.
    DryRun,
    /// Let it go.
    Delete,
}

/// What went, or would go.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// The keys, in the order they were chosen, and the bytes that went with each.
    pub forgotten: Vec<(KeyUse, u64)>,
    /// Blobs that were packed, the least recently used first.
    pub packed: Vec<Packed>,
    /// Blobs deleted, packed ones among them.
    pub blobs: usize,
    /// Bytes deleted; what packing saved is not among them.
    pub bytes: u64,
    /// Bytes that stay.
    pub bytes_left: u64,
    /// Who keeps how many bytes that would otherwise have gone: only told where a limit was not reached.
    pub kept: Vec<(String, u64)>,
}

/// A blob that was packed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The blob.
    pub digest: Digest,
    /// The label of the key that used it last; none if only a project stands on it.
    pub label: Option<String>,
    /// Bytes that its pack is smaller by.
    pub bytes_saved: u64,
}

/// What the store holds: its blobs, and which of them each artifact names.
#[derive(Default)]
struct Survey {
    /// Bytes of each blob's file, or of its pack's.
    sizes: HashMap<Digest, u64>,
    /// Blobs of an artifact, its tree among them; an artifact whose tree cannot be read is not here.
    blobs_of: HashMap<Digest, BTreeSet<Digest>>,
    /// The blobs that a packed one takes bytes from.
    bases_of: HashMap<Digest, BTreeSet<Digest>>,
    /// Whole blobs.
    whole: Vec<Blob>,
}

impl Store {
    /// Packs blobs and forgets keys until the limits are met, and deletes what no key, pack or `standing` names.
    ///
    /// `standing` is asked once nobody can change the answer; `waiting` is called if builds must be waited for.
    pub fn prune(
        &self,
        limits: &Limits,
        mode: Mode,
        standing: &mut dyn FnMut() -> Result<Vec<Standing>, Failure>,
        waiting: &mut dyn FnMut(),
    ) -> Result<Pruned, Failure> {
        let _closed = match mode {
            Mode::Delete => Some(self.gate.close(waiting)?),
            Mode::DryRun => None,
        };
        let (standing, keys) = (standing()?, self.index.keys()?);
        let idle_bytes = self.settle(mode)?;
        let mut survey = self.survey(&keys, &standing)?;
        let packed = match limits.bytes_max {
            Some(bytes_max) => self.pack(&mut survey, &keys, &standing, limits, bytes_max, mode)?,
            None => Vec::new(),
        };
        let pruned = self.clear(&survey, &keys, &standing, limits, mode)?;
        Ok(Pruned { packed, bytes: pruned.bytes + idle_bytes, ..pruned })
    }

    /// Prunes if nobody uses the store now. Packs nothing: that would read every large blob.
    pub fn try_prune(
        &self,
        limits: &Limits,
        standing: &mut dyn FnMut() -> Result<Vec<Standing>, Failure>,
    ) -> Result<Option<Pruned>, Failure> {
        let Some(_closed) = self.gate.try_close()? else { return Ok(None) };
        let (standing, keys) = (standing()?, self.index.keys()?);
        let idle_bytes = self.settle(Mode::Delete)?;
        let survey = self.survey(&keys, &standing)?;
        let pruned = self.clear(&survey, &keys, &standing, limits, Mode::Delete)?;
        Ok(Some(Pruned { bytes: pruned.bytes + idle_bytes, ..pruned }))
    }

    /// Packs what is needed until the store is no larger than asked for. The survey is then as it is afterwards.
    fn pack(
        &self,
        survey: &mut Survey,
        keys: &[KeyUse],
        standing: &[Standing],
        limits: &Limits,
        bytes_max: u64,
        mode: Mode,
    ) -> Result<Vec<Packed>, Failure> {
        let (needed, doomed) = choose(keys, standing, survey, &Limits { bytes_max: None, ..*limits });
        let mut bytes_left = needed.bytes_left;
        if bytes_left <= bytes_max {
            return Ok(Vec::new());
        }
        let mut packable = self.blobs.packable(candidates(keys, survey, &doomed))?;
        let mut packed = Vec::new();
        while bytes_left > bytes_max
            && let Some((digest, pack)) = packable.pop()
        {
            if mode == Mode::Delete {
                let evidence = match self.blobs.pack(&digest, &pack) {
                    Ok(Some(evidence)) => evidence,
                    // Verification tells of it, and whoever needs it.
                    Ok(None) => continue,
                    // Where there is no room for a pack there still is something to delete.
                    Err(StoreError::Fs(e)) if e.is_full() => break,
                    Err(error) => return Err(error.into()),
                };
                self.index.put(&[], &[evidence])?;
                fs::remove_file(&self.blobs.path(&digest))?;
            }
            let bytes_saved = pack.size() - pack.file_size();
            bytes_left -= bytes_saved;
            survey.sizes.insert(digest, pack.file_size());
            survey.bases_of.insert(digest, pack.bases());
            let names = |k: &&KeyUse| survey.blobs_of.get(&k.artifact).is_some_and(|blobs| blobs.contains(&digest));
            let label = keys.iter().rev().find(names).map(|k| k.label.clone());
            packed.push(Packed { digest, label, bytes_saved });
        }
        Ok(packed)
    }

    /// Forgets keys until the limits are met, and deletes what nothing names.
    fn clear(
        &self,
        survey: &Survey,
        keys: &[KeyUse],
        standing: &[Standing],
        limits: &Limits,
        mode: Mode,
    ) -> Result<Pruned, Failure> {
        let (pruned, doomed) = choose(keys, standing, survey, limits);
        if mode == Mode::Delete {
            let forgotten: Vec<Digest> = pruned.forgotten.iter().map(|(k, _)| k.key).collect();
            self.index.forget_all(&forgotten, &doomed)?;
            doomed
                .par_iter()
                .map(|digest| fs::remove_file(&self.blobs.pack_path(digest)))
                .collect::<Result<(), _>>()?;
            doomed.par_iter().map(|digest| fs::remove_file(&self.blobs.path(digest))).collect::<Result<(), _>>()?;
            for leftover in self.leftovers()? {
                self.remove_leftover(&leftover)?;
            }
            self.index.forget_all(&[], &self.stale_rows()?)?;
        }
        Ok(pruned)
    }

    /// Of a blob and its pack one goes: the pack, unless the blob is not what it should be. Gives the bytes of such packs.
    fn settle(&self, mode: Mode) -> Result<u64, Failure> {
        let mut packs = self.blobs.list_packs()?;
        packs.retain(|pack| self.blobs.path(&pack.digest).exists());
        for Blob { digest, .. } in packs.iter().filter(|_| mode == Mode::Delete) {
            let path = self.blobs.path(digest);
            if !self.blobs.is_kept(&self.index, digest) {
                let (found, size) = fs::at("read", &path, Digest::of_file(&path))?;
                if found != *digest {
                    self.blobs.put_aside(digest, &path);
                    continue;
                }
                let metadata = fs::at("look at", &path, path.symlink_metadata())?;
                self.index.put(&[], &[(*digest, size, mtime_ns(&metadata))])?;
            }
            self.blobs.sync([digest].into_iter())?;
            fs::remove_file(&self.blobs.pack_path(digest))?;
        }
        Ok(packs.iter().map(|pack| pack.size).sum())
    }

    fn survey(&self, keys: &[KeyUse], standing: &[Standing]) -> Result<Survey, Failure> {
        let mut survey = Survey { whole: self.blobs.list()?, ..Survey::default() };
        survey.sizes = survey.whole.iter().map(|blob| (blob.digest, blob.size)).collect();
        for pack in self.blobs.list_packs()? {
            if survey.sizes.contains_key(&pack.digest) {
                continue;
            }
            survey.sizes.insert(pack.digest, pack.size);
            // One that cannot be read names nothing; whoever needs it finds out.
            if let Some((read, _)) = Pack::open(&self.blobs.pack_path(&pack.digest))? {
                survey.bases_of.insert(pack.digest, read.bases());
            }
        }
        let artifacts: BTreeSet<Digest> =
            keys.iter().map(|k| k.artifact).chain(standing.iter().flat_map(|s| s.artifacts.iter().copied())).collect();
        let artifacts: Vec<Digest> = artifacts.into_iter().collect();
        let read = |artifact: &Digest| {
            let tree = self.blobs.look_at_tree(artifact).ok()?;
            let blobs = tree.entries().iter().map(|e| e.digest).chain([*artifact]).collect();
            Some((*artifact, blobs))
        };
        survey.blobs_of = artifacts.par_iter().filter_map(read).collect();
        Ok(survey)
    }

    /// Files of writers that were killed, and files that do not belong here. What was put aside for a look is not
    /// among them. Only meaningful while the gate is closed: nobody is writing then.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, Failure> {
        let aside = |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"corrupt-"));
        let mut leftovers = fs::list(&self.root.join("incoming"))?;
        leftovers.retain(|path| !aside(path));
        leftovers.extend(self.blobs.strangers()?);
        leftovers.extend(self.free_locks()?);
        let is_named = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.len() == 64);
        leftovers.extend(fs::list(&self.users_dir())?.into_iter().filter(|path| !is_named(path)));
        // Half a tag.
        let is_temporary = |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b".tmp"));
        leftovers.extend(fs::list(&self.root)?.into_iter().filter(is_temporary));
        Ok(leftovers)
    }

    /// Blobs that the index remembers and that are not there. Only meaningful while the gate is closed.
    pub fn stale_rows(&self) -> Result<Vec<Digest>, Failure> {
        let files = [self.blobs.list()?, self.blobs.list_packs()?].concat();
        let there: HashSet<Digest> = files.iter().map(|blob| blob.digest).collect();
        let evidence = self.index.evidence()?;
        Ok(evidence.into_iter().map(|(digest, ..)| digest).filter(|digest| !there.contains(digest)).collect())
    }

    pub(super) fn remove_leftover(&self, path: &std::path::Path) -> Result<(), fs::FsError> {
        if path.starts_with(self.root.join("locks")) { self.remove_free_lock(path) } else { fs::remove_file(path) }
    }
}

/// Blobs that may be packed, and may be packed against: large, needed, and with one name only. A second name in `out/`
/// would keep the bytes on the disk, and lets somebody write to them. The most recently used first; what only a project
/// stands on was used last.
fn candidates(keys: &[KeyUse], survey: &Survey, doomed: &[Digest]) -> Vec<Candidate> {
    let mut used: HashMap<Digest, Option<usize>> = HashMap::new();
    for blob in survey.blobs_of.values().flatten() {
        used.insert(*blob, None);
    }
    for (turn, key) in keys.iter().enumerate() {
        for blob in survey.blobs_of.get(&key.artifact).into_iter().flatten() {
            used.insert(*blob, Some(turn));
        }
    }
    let doomed: HashSet<&Digest> = doomed.iter().collect();
    let bases: HashSet<&Digest> = survey.bases_of.values().flatten().collect();
    let fits = |blob: &&Blob| {
        blob.size >= PACKED_BYTES_MIN
            && blob.names == 1
            && used.contains_key(&blob.digest)
            && !doomed.contains(&blob.digest)
            // The list of an artifact's files is read too often.
            && !survey.blobs_of.contains_key(&blob.digest)
    };
    let mut blobs: Vec<Digest> = survey.whole.iter().filter(fits).map(|blob| blob.digest).collect();
    blobs.sort_by_key(|digest| (used[digest].map_or(0, |turn| keys.len() - turn), *digest));
    blobs.into_iter().map(|digest| Candidate { digest, is_base: bases.contains(&digest) }).collect()
}

/// Chooses the keys to forget and the blobs that go with them. Pure.
fn choose(keys: &[KeyUse], standing: &[Standing], survey: &Survey, limits: &Limits) -> (Pruned, Vec<Digest>) {
    let size = |digest: &Digest| survey.sizes.get(digest).copied().unwrap_or(0);
    let kept: BTreeSet<Digest> = standing.iter().flat_map(|s| s.artifacts.iter().copied()).collect();
    // How many keys name an artifact, and how many living artifacts name a blob.
    let mut keys_of: HashMap<Digest, usize> = HashMap::new();
    for key in keys {
        *keys_of.entry(key.artifact).or_default() += 1;
    }
    let mut names: HashMap<Digest, usize> = HashMap::new();
    for blobs in survey.blobs_of.values() {
        for blob in blobs {
            *names.entry(*blob).or_default() += 1;
        }
    }
    // And how many of those packs do.
    let living: Vec<Digest> = survey.bases_of.keys().filter(|packed| names.contains_key(*packed)).copied().collect();
    for base in living.iter().flat_map(|packed| &survey.bases_of[packed]) {
        *names.entry(*base).or_default() += 1;
    }
    let mut doomed: Vec<Digest> = survey.sizes.keys().filter(|blob| !names.contains_key(*blob)).copied().collect();
    let mut pruned = Pruned::default();
    pruned.bytes = doomed.iter().map(size).sum();
    pruned.bytes_left = survey.sizes.values().sum::<u64>() - pruned.bytes;
    for key in keys {
        let too_old = limits.used_since.is_some_and(|since| key.used_at < since);
        let too_much = limits.bytes_max.is_some_and(|max| pruned.bytes_left > max);
        // A key whose tree cannot be read promises nothing.
        let empty = !survey.blobs_of.contains_key(&key.artifact);
        if !empty && (kept.contains(&key.artifact) || !(too_old || too_much)) {
            continue;
        }
        let left = keys_of.get_mut(&key.artifact).expect("counted above");
        *left -= 1;
        let mut freed = 0;
        if *left == 0
            && !kept.contains(&key.artifact)
            && let Some(blobs) = survey.blobs_of.get(&key.artifact)
        {
            let mut released: Vec<Digest> = blobs.iter().copied().collect();
            while let Some(blob) = released.pop() {
                let others = names.get_mut(&blob).expect("counted above");
                *others -= 1;
                if *others == 0 && survey.sizes.contains_key(&blob) {
                    doomed.push(blob);
                    freed += size(&blob);
                    released.extend(survey.bases_of.get(&blob).into_iter().flatten());
                }
            }
        }
        pruned.bytes += freed;
        pruned.bytes_left -= freed;
        pruned.forgotten.push((key.clone(), freed));
    }
    pruned.blobs = doomed.len();
    if limits.bytes_max.is_some_and(|max| pruned.bytes_left > max) {
        pruned.kept = standing.iter().map(|s| (s.who.clone(), stood_on(s, survey))).filter(|(_, n)| *n > 0).collect();
    }
    doomed.sort_unstable();
    (pruned, doomed)
}

/// Bytes of the blobs that somebody stands on, with those that packs among them name.
fn stood_on(standing: &Standing, survey: &Survey) -> u64 {
    let blobs: BTreeMap<&Digest, u64> = standing
        .artifacts
        .iter()
        .filter_map(|artifact| survey.blobs_of.get(artifact))
        .flatten()
        .flat_map(|blob| survey.bases_of.get(blob).into_iter().flatten().chain([blob]))
        .map(|blob| (blob, survey.sizes.get(blob).copied().unwrap_or(0)))
        .collect();
    blobs.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u32) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    /// Keys 0, 1, 2, used in that order, of artifacts 10, 11, 12; each holds a blob of its own of 100 bytes,
    /// 10 and 11 share one of 1000, trees are of one byte, and blob 99 is named by nothing.
    fn survey() -> (Vec<KeyUse>, Survey) {
        let key = |n: u32| KeyUse {
            key: digest(n),
            artifact: digest(n + 10),
            label: format!("t{n}"),
            used_at: jiff::Timestamp::from_second(i64::from(n)).expect("a time"),
        };
        let mut sizes: HashMap<Digest, u64> = [(digest(99), 7), (digest(50), 1000)].into();
        let mut blobs_of = HashMap::new();
        for n in 10..13 {
            sizes.extend([(digest(n), 1), (digest(n + 10), 100)]);
            let mut blobs = BTreeSet::from([digest(n), digest(n + 10)]);
            if n < 12 {
                blobs.insert(digest(50));
            }
            blobs_of.insert(digest(n), blobs);
        }
        (vec![key(0), key(1), key(2)], Survey { sizes, blobs_of, ..Survey::default() })
    }

    #[track_caller]
    fn check(limits: Limits, standing: &[Digest], forgotten: &[&str], bytes_left: u64) {
        let (keys, survey) = survey();
        let standing = [Standing { who: "me".into(), artifacts: standing.to_vec() }];
        let (pruned, doomed) = choose(&keys, &standing, &survey, &limits);
        let labels: Vec<&str> = pruned.forgotten.iter().map(|(k, _)| k.label.as_str()).collect();
        assert_eq!((labels.as_slice(), pruned.bytes_left), (forgotten, bytes_left));
        let left: u64 = survey.sizes.iter().filter(|(d, _)| !doomed.contains(d)).map(|(_, n)| n).sum();
        assert_eq!((left, pruned.bytes, pruned.blobs), (bytes_left, 1310 - bytes_left, doomed.len()));
    }

    #[test]
    fn least_recently_used_first_and_shared_blobs_last() {
        let to = |n| Limits { bytes_max: Some(n), used_since: None };
        check(Limits::default(), &[], &[], 1303);
        check(to(1303), &[], &[], 1303);
        check(to(1302), &[], &["t0"], 1202);
        check(to(1000), &[], &["t0", "t1"], 101);
        check(to(0), &[], &["t0", "t1", "t2"], 0);
        let since = |s| Limits { bytes_max: None, used_since: jiff::Timestamp::from_second(s).ok() };
        check(since(0), &[], &[], 1303);
        check(since(2), &[], &["t0", "t1"], 101);
    }

    #[test]
    fn what_a_living_pack_names_stays() {
        let (keys, mut survey) = survey();
        // The blob of key 0 is packed against that of key 2, and an unneeded one against blob 98.
        survey.sizes.extend([(digest(10 + 10), 30), (digest(98), 500)]);
        survey.bases_of.insert(digest(20), [digest(22)].into());
        survey.bases_of.insert(digest(99), [digest(98)].into());
        let to = |n| Limits { bytes_max: Some(n), used_since: None };
        let standing = |n| [Standing { who: "me".into(), artifacts: vec![digest(n)] }];
        let (pruned, doomed) = choose(&keys, &standing(10), &survey, &to(0));
        assert_eq!((pruned.forgotten.len(), pruned.bytes_left), (2, 1 + 30 + 1000 + 100));
        assert!(!doomed.contains(&digest(22)) && doomed.contains(&digest(98)));
        assert_eq!(pruned.kept, [("me".to_owned(), pruned.bytes_left)]);
        let (pruned, doomed) = choose(&keys, &standing(11), &survey, &to(0));
        assert!(doomed.contains(&digest(20)) && doomed.contains(&digest(22)), "they go together");
        assert_eq!(pruned.bytes_left, 1 + 100 + 1000);
    }

    #[test]
    fn what_somebody_stands_on_stays() {
        let all = Limits { bytes_max: Some(0), used_since: None };
        check(all, &[digest(10)], &["t1", "t2"], 1101);
        check(all, &[digest(12)], &["t0", "t1"], 101);
    }
}
