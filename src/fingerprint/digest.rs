//! blake3, and nothing else: the one owner of the hash.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Files of this size and more are hashed by memory map and all threads; measured, below it the map costs more.
const MAPPED_BYTES_MIN: u64 = 1 << 20;

/// A blake3 digest: 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file's content, and its size in bytes.
    pub fn of_file(path: &Path) -> io::Result<(Self, u64)> {
        #[expect(clippy::disallowed_methods, reason = "errors are given their path by the caller")]
        let mut file = std::fs::File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let mut hasher = blake3::Hasher::new();
        if size_bytes >= MAPPED_BYTES_MIN {
            hasher.update_mmap_rayon(path)?;
        } else {
            let mut buffer = Vec::with_capacity(size_bytes as usize + 1);
            file.read_to_end(&mut buffer)?;
            hasher.update(&buffer);
        }
        Ok((Self(*hasher.finalize().as_bytes()), hasher.count()))
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From raw bytes, as kept in a database.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The first eight digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

/// A digest being made of parts.
#[derive(Default)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Begins a digest in a domain of its own: equal bytes in two domains have different digests.
    pub fn in_domain(domain: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(domain))
    }

    /// Adds a length-prefixed part, so that `ab` `c` and `a` `bc` differ.
    pub fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds bytes as they are.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest.
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

/// Not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not a digest of 64 hexadecimal digits: `{0}`")]
pub struct BadDigest(String);

impl FromStr for Digest {
    type Err = BadDigest;
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        blake3::Hash::from_hex(text).map(|h| Self(*h.as_bytes())).map_err(|_| BadDigest(text.to_owned()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            // At once, and not byte by byte: a large plan's state holds hundreds of thousands.
            let bytes = <&[u8]>::deserialize(deserializer)?;
            return bytes.try_into().map(Self).map_err(|_| serde::de::Error::invalid_length(bytes.len(), &"32 bytes"));
        }
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
