//! Which blobs are packed, and against which.
//!
//! Blobs are cut by content (FastCDC, 64 KiB on average): equal bytes are cut equally wherever they lie, so what model
//! files share is found without knowing their format. The most recently used is whole; each further one either is mostly
//! bytes of whole ones, and can be packed, or is whole itself. docs/notes/shared-tensors.md has the measurements.
//!
//! This module reads and decides; `prune.rs` has it done.

use std::collections::HashMap;

use fastcdc::v2020::StreamCDC;
use rayon::prelude::*;

use super::blobs::Blobs;
use super::pack::{Pack, Range};
use crate::fingerprint::Digest;
use crate::util::fs::{self, FsError};

/// Smaller blobs are not worth a pack.
pub(super) const PACKED_BYTES_MIN: u64 = 1 << 20;

/// Least, average and most bytes of a part: measured, the smallest average that costs nothing to speak of.
const PART_BYTES: (u32, u32, u32) = (16 << 10, 64 << 10, 256 << 10);

/// A blob that may be packed, or packed against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) digest: Digest,
    /// Packs name it: it stays whole.
    pub(super) is_base: bool,
}

/// The digest and length of each part of a blob.
type Parts = Vec<(Digest, u64)>;

impl Blobs {
    /// Which of these can be packed, and how; by last use, the latest first, as they are given.
    pub(super) fn packable(&self, candidates: Vec<Candidate>) -> Result<Vec<(Digest, Pack)>, FsError> {
        let cut = |candidate: Candidate| {
            let parts = self.cut(&candidate.digest)?;
            Ok((candidate, parts))
        };
        let cut: Vec<(Candidate, Parts)> = candidates.into_par_iter().map(cut).collect::<Result<_, FsError>>()?;
        Ok(choose(&cut))
    }

    /// A blob that is not there, or that the disk cannot read, has no parts.
    fn cut(&self, digest: &Digest) -> Result<Parts, FsError> {
        let path = self.path(digest);
        let file = match fs::open(&path) {
            Err(e) if e.is_missing() => return Ok(Parts::new()),
            other => other?,
        };
        let (least, average, most) = PART_BYTES;
        let parts = StreamCDC::new(file, least, average, most);
        let parts: Result<Parts, _> =
            parts.map(|part| part.map(|part| (Digest::of(&part.data), part.length as u64))).collect();
        match parts.map_err(std::io::Error::from) {
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(Parts::new()),
            other => fs::at("read", &path, other),
        }
    }
}

/// Pure.
fn choose(blobs: &[(Candidate, Parts)]) -> Vec<(Digest, Pack)> {
    // Where the bytes of each part are in a whole blob.
    let mut whole: HashMap<Digest, (Digest, u64)> = HashMap::new();
    let mut packable = Vec::new();
    for (candidate, parts) in blobs {
        let size: u64 = parts.iter().map(|(_, length)| length).sum();
        let own: u64 = parts.iter().filter(|(part, _)| !whole.contains_key(part)).map(|(_, length)| length).sum();
        if candidate.is_base || own * 4 >= size * 3 {
            let mut offset = 0;
            for (part, length) in parts {
                whole.entry(*part).or_insert((candidate.digest, offset));
                offset += length;
            }
            continue;
        }
        let mut pack = Pack::default();
        for (part, length) in parts {
            pack.push(match whole.get(part) {
                Some((blob, offset)) => Range::Of { blob: *blob, offset: *offset, length: *length },
                None => Range::Own { length: *length },
            });
        }
        packable.push((candidate.digest, pack));
    }
    packable
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob of parts of 1000 bytes, each named by a letter.
    fn blob(name: &str, is_base: bool, parts: &str) -> (Candidate, Parts) {
        let parts = parts.chars().map(|c| (Digest::of(c.to_string().as_bytes()), 1000)).collect();
        (Candidate { digest: Digest::of(name.as_bytes()), is_base }, parts)
    }

    #[track_caller]
    fn check(blobs: &[(Candidate, Parts)], packable: &[(&str, u64)]) {
        let chosen = choose(blobs);
        let named: Vec<Digest> = chosen.iter().map(|(digest, _)| *digest).collect();
        assert_eq!(named, packable.iter().map(|(name, _)| Digest::of(name.as_bytes())).collect::<Vec<_>>());
        for ((_, pack), (name, own)) in chosen.iter().zip(packable) {
            assert!(pack.file_size() >= *own && pack.file_size() < own + 1000, "{name}: {}", pack.file_size());
            assert!(pack.bases().iter().all(|base| !named.contains(base)), "{name} stands on a packed blob");
        }
    }

    #[test]
    fn the_first_is_whole_and_others_are_packed_where_a_quarter_is_shared() {
        check(&[blob("a", false, "abcd"), blob("b", false, "abcx"), blob("c", false, "axyz")], &[("b", 1000)]);
        check(&[blob("a", false, "abcdefgh"), blob("b", false, "abcwxyzv")], &[("b", 5000)]);
        check(&[blob("a", false, "abcd")], &[]);
        check(&[blob("a", false, "abcd"), blob("b", true, "abcd")], &[]);
        check(&[blob("a", false, "abcd"), blob("gone", false, "")], &[]);
    }

    #[test]
    fn what_is_packed_is_not_packed_against() {
        // `c` has three of its parts from `b`, which is packed itself.
        check(&[blob("a", false, "abcd"), blob("b", false, "abwx"), blob("c", false, "awxz")], &[("b", 2000)]);
    }
}
