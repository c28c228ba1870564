//! Paths in files of our own, as bytes: names need not be UTF-8. For `#[serde(with = ...)]`, in binary forms only.

/// One path.
pub mod one {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    /// As bytes.
    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(path.as_os_str().as_bytes())
    }

    /// From bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Ok(OsString::from_vec(bytes.to_vec()).into())
    }
}

/// Several.
pub mod many {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    /// As bytes.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|p| p.as_os_str().as_bytes()))
    }

    /// From bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let all = Vec::<Vec<u8>>::deserialize(deserializer)?;
        Ok(all.into_iter().map(|bytes| OsString::from_vec(bytes).into()).collect())
    }
}
