//! Collection: forgetting keys and deleting the blobs that nothing names any more.
//!
//! Least recently used keys go first. What a [`Standing`] names stays, also where no key names it. Three
//! steps, each of which may be the last: the gate is closed, so no build is between a blob and the row
//! that names it; the keys are forgotten, on disk; then blobs go. Killed after the second step, the store
//! holds blobs that nothing names, and the next collection takes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;

use super::index::KeyUse;
use super::{Standing, Store};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::util::fs;

/// What is to go, besides blobs that nothing names.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Forget keys until the store is no larger.
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
    /// Blobs deleted.
    pub blobs: usize,
    /// Bytes deleted.
    pub bytes: u64,
    /// Bytes that stay.
    pub bytes_left: u64,
    /// Who keeps how many bytes that would otherwise have gone: only told where a limit was not reached.
    pub kept: Vec<(String, u64)>,
}

/// What the store holds: its blobs, and which of them each artifact names.
struct Survey {
    sizes: HashMap<Digest, u64>,
    /// Blobs of an artifact, its tree among them; an artifact whose tree cannot be read is not here.
    blobs_of: HashMap<Digest, BTreeSet<Digest>>,
}

impl Store {
    /// Forgets keys until the limits are met and deletes what no key and no `standing` names.
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
        self.prune_closed(limits, mode, standing)
    }

    /// Prunes if nobody uses the store now.
    pub fn try_prune(
        &self,
        limits: &Limits,
        standing: &mut dyn FnMut() -> Result<Vec<Standing>, Failure>,
    ) -> Result<Option<Pruned>, Failure> {
        let Some(_closed) = self.gate.try_close()? else { return Ok(None) };
        self.prune_closed(limits, Mode::Delete, standing).map(Some)
    }

    fn prune_closed(
        &self,
        limits: &Limits,
        mode: Mode,
        standing: &mut dyn FnMut() -> Result<Vec<Standing>, Failure>,
    ) -> Result<Pruned, Failure> {
        let standing = standing()?;
        let keys = self.index.keys()?;
        let named = keys.iter().map(|k| k.artifact).chain(standing.iter().flat_map(|s| s.artifacts.iter().copied()));
        let survey = self.survey(named.collect())?;
        let (pruned, doomed) = choose(&keys, &standing, &survey, limits);
        if mode == Mode::Delete {
            let forgotten: Vec<Digest> = pruned.forgotten.iter().map(|(k, _)| k.key).collect();
            self.index.forget_all(&forgotten, &doomed)?;
            doomed.par_iter().map(|digest| fs::remove_file(&self.blobs.path(digest))).collect::<Result<(), _>>()?;
            for leftover in self.leftovers()? {
                self.remove_leftover(&leftover)?;
            }
            self.index.forget_all(&[], &self.stale_rows()?)?;
        }
        Ok(pruned)
    }

    fn survey(&self, artifacts: BTreeSet<Digest>) -> Result<Survey, Failure> {
        let sizes = self.blobs.list()?.into_iter().map(|blob| (blob.digest, blob.size)).collect();
        let artifacts: Vec<Digest> = artifacts.into_iter().collect();
        let read = |artifact: &Digest| {
            let tree = self.blobs.look_at_tree(artifact).ok()?;
            let blobs = tree.entries().iter().map(|e| e.digest).chain([*artifact]).collect();
            Some((*artifact, blobs))
        };
        Ok(Survey { sizes, blobs_of: artifacts.par_iter().filter_map(read).collect() })
    }

    /// Files of writers that were killed, and files that do not belong here. What was put aside for a look is not
    /// among them. Only meaningful while the gate is closed: nobody is writing then.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, Failure> {
        let aside = |path: &PathBuf| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"corrupt-"));
        let mut leftovers = fs::list(&self.root.join("incoming"))?;
        leftovers.retain(|path| !aside(path));
        leftovers.extend(self.blobs.walk()?.1);
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
        let there: HashSet<Digest> = self.blobs.list()?.iter().map(|blob| blob.digest).collect();
        let evidence = self.index.evidence()?;
        Ok(evidence.into_iter().map(|(digest, ..)| digest).filter(|digest| !there.contains(digest)).collect())
    }

    pub(super) fn remove_leftover(&self, path: &std::path::Path) -> Result<(), fs::FsError> {
        if path.starts_with(self.root.join("locks")) { self.remove_free_lock(path) } else { fs::remove_file(path) }
    }
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
            for blob in blobs {
                let others = names.get_mut(blob).expect("counted above");
                *others -= 1;
                if *others == 0 && survey.sizes.contains_key(blob) {
                    doomed.push(*blob);
                    freed += size(blob);
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

/// Bytes of the blobs that somebody stands on.
fn stood_on(standing: &Standing, survey: &Survey) -> u64 {
    let blobs: BTreeMap<&Digest, u64> = standing
        .artifacts
        .iter()
        .filter_map(|artifact| survey.blobs_of.get(artifact))
        .flatten()
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
        (vec![key(0), key(1), key(2)], Survey { sizes, blobs_of })
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
    fn what_somebody_stands_on_stays() {
        let all = Limits { bytes_max: Some(0), used_since: None };
        check(all, &[digest(10)], &["t1", "t2"], 1101);
        check(all, &[digest(12)], &["t0", "t1"], 101);
    }
}
