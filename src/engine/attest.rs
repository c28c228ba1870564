//! What this project's record can state of how an artifact was made, for others to verify.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::{Engine, EngineError};
use crate::failure::Failure;
use crate::fingerprint::Digest;
use crate::git::Git;
use crate::plan::{Index, resolve, seen_from};
use crate::provenance::{Commit, Made, Statement};
use crate::recipe::walk::walk;
use crate::store::Purpose;
use crate::util::fs;

impl Engine {
    /// States how a target's artifact was made. Only of a run that was here, and while the target is as it was then: what
    /// a remote or another project says of a run is theirs to sign.
    pub fn statement(&mut self, index: Index) -> Result<Statement, EngineError> {
        let (key, artifact) = self.built(index)?;
        let label = self.label(index);
        let run = self.record.maker(label.as_str(), &artifact)?.filter(|run| run.key == key);
        let row = self.store.index.get(&key)?;
        let Some((run, row)) = run.zip(row) else {
            let failure = Failure::user(format!("{label} was not made here, so there is no record of how"));
            let help = format!(
                "whoever made it can sign that; `effai notes fetch` brings what they signed, `effai build --force {label}` \
                 makes it here"
            );
            return Err(failure.help(help).into());
        };
        let labels = self.labels_of_facts(index)?;
        let files = self.aside(&artifact)?;
        let made = Made {
            label: label.as_str(),
            kind: &row.kind,
            artifact,
            facts: &row.manifest,
            labels: &labels,
            backend: &row.backend,
            threads: run.threads,
            sandbox: run.sandbox.as_deref(),
            invocation: format!("run-{}", run.id),
            started: &run.started_at,
            finished: after(&run.started_at, run.wall_ms),
            commit: self.commit()?,
        };
        Ok(Statement::of(&made, files.path())?)
    }

    /// The key and artifact of a target that is built as it is declared now.
    pub fn built(&mut self, index: Index) -> Result<(Digest, Digest), Failure> {
        let closure = self.plan().closure(&[index]);
        let judged = self.judge_all(&closure)?.remove(&index);
        judged.and_then(|judged| judged.key.zip(judged.artifact)).ok_or_else(|| {
            let label = self.label(index);
            Failure::user(format!("{label} is not built as it is declared now"))
                .help(format!("`effai build {label}` builds it"))
        })
    }

    /// An artifact's files in a directory of their own, to be read.
    pub fn aside(&self, artifact: &Digest) -> Result<TempDir, Failure> {
        let dir = fs::at("make a directory in", &std::env::temp_dir(), tempfile::tempdir())?;
        self.store.blobs.materialise(&self.store.index, artifact, dir.path(), Purpose::Input)?;
        Ok(dir)
    }

    /// The commit whose files these are.
    fn commit(&self) -> Result<Option<Commit>, Failure> {
        let Ok(git) = Git::of(&self.root) else { return Ok(None) };
        let Some(head) = git.head()? else { return Ok(None) };
        let changed = git.changed()?.into_iter().filter(|path| path != crate::lock::FILE).collect();
        Ok(Some(Commit { id: head.commit, origin: git.origin(), changed }))
    }

    /// Which label each fact that is an artifact stands for, as the target is declared now.
    pub fn labels_of_facts(&self, index: Index) -> Result<BTreeMap<String, String>, Failure> {
        let decl = self.decl(index)?;
        let label = self.plan().name(index);
        let mut labels = BTreeMap::new();
        walk(self.plan().kind(index).schema(), &decl.fields, &mut |visit| {
            if visit.ty.is_label() {
                let named = visit.value.as_str().unwrap_or_default();
                labels.insert(format!("{}.{}", decl.kind, visit.fact), resolve(&decl.base, named));
            }
        });
        for dependency in self.plan().dependencies(index) {
            let other = self.label(dependency.index);
            labels.insert(format!("alongside.{}", seen_from(&decl.base, other.as_str())), other.to_string());
            if let Some(part) = other.as_str().strip_prefix(&format!("{label}:")) {
                labels.insert(format!("{}.part.{part}", decl.kind), other.to_string());
            }
        }
        Ok(labels)
    }
}

/// A time some milliseconds later, RFC 3339 in UTC.
fn after(started: &str, wall_ms: u64) -> String {
    let Ok(started) = started.parse::<jiff::Timestamp>() else { return started.to_owned() };
    let wall = jiff::SignedDuration::from_millis(i64::try_from(wall_ms).unwrap_or_default());
    started.saturating_add(wall).unwrap_or(started).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_run_ends_as_long_after_its_begin_as_it_took() {
        assert_eq!(super::after("2026-11-29T23:59:58.75Z", 2_500), "2026-11-30T00:00:01.25Z");
    }
}
