//! Identity: digests, manifests and the reasons that two of them differ.
//!
//! Pure but for hashing files. It reads no clock, no environment and no network; what it must know of
//! the machine is handed in by [`facts::Outside`].

mod digest;
pub mod evidence;
pub mod facts;
mod manifest;

pub use digest::{BadDigest, Digest, Hasher};
pub use manifest::{Fact, Manifest, Reason};
