//! SHA-256, for what others publish and verify; effai's own digests are blake3 ([`crate::fingerprint::Digest`]).

use std::fmt;
use std::io;
use std::path::Path;

use sha2::Digest as _;

/// A SHA-256 digest: 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Of a file's content.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "errors are given their path by the caller")]
        let mut file = std::fs::File::open(path)?;
        let mut hasher = sha2::Sha256::new();
        io::copy(&mut file, &mut hasher)?;
        Ok(Self(hasher.finalize().into()))
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
