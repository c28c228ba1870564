//! The engine's answers to what a manifest must know from outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::fingerprint::evidence::Stat;
use crate::fingerprint::facts::Outside;
use crate::recipe::glob;
use crate::record::Record;
use crate::util::{fs, machine};

/// A project's files and machine.
pub(super) struct Project<'a> {
    pub(super) root: &'a Path,
    pub(super) record: &'a Record,
    /// Digests asked for in this process already: each file is hashed once a build.
    pub(super) read: &'a mut BTreeMap<PathBuf, Digest>,
}

impl Outside for Project<'_> {
    fn file(&mut self, path: &Path) -> Result<Option<Digest>, Failure> {
        if let Some(digest) = self.read.get(path) {
            return Ok(Some(*digest));
        }
        let full = self.root.join(path);
        let Ok(metadata) = full.metadata() else { return Ok(None) };
        let stat = Stat::of(&metadata);
        let digest = match self.record.file(path) {
            Some((then, read_at_ns, digest)) if stat.proves(&then, read_at_ns) => digest,
            _ => {
                let read_at_ns = now_ns();
                let (digest, _) = fs::at("read", &full, Digest::of_file(&full))?;
                self.record.put_file(path, &stat, read_at_ns, &digest);
                digest
            }
        };
        self.read.insert(path.to_owned(), digest);
        Ok(Some(digest))
    }

    fn files(&mut self, pattern: &str) -> Result<Vec<PathBuf>, Failure> {
        glob::expand(self.root, pattern).map_err(|e| Failure::environment(e.to_string()))
    }

    fn has_tool(&mut self, name: &str) -> bool {
        crate::env::find_program(name).is_some()
    }

    fn machine(&mut self) -> String {
        machine::identity()
    }
}

fn now_ns() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}
