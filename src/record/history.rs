//! Past builds and runs: written as a build goes, read by `log`, `trace`, `explain` and the estimate of time left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, Row, params};

use super::{Record, digest};
use crate::event::Summary;
use crate::fingerprint::Digest;
use crate::plan::Label;
use crate::util::sqlite::DbError;

/// A build's number in the record.
pub type BuildId = i64;

/// What an action's row says of its place in a build.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// The build.
    pub build: BuildId,
    /// The pool it ran in.
    pub pool: String,
    /// When everything under it was known, from the build's begin.
    pub ready_us: u64,
    /// When it began.
    pub start_us: u64,
    /// When it ended, its outputs in the store.
    pub end_us: u64,
    /// Labels of this build's actions that it stands on.
    pub after: Vec<String>,
}

/// A build as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildRow {
    /// Its number.
    pub id: BuildId,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// What was named on the command line.
    pub asked: Vec<String>,
    /// Actions at once.
    pub jobs: usize,
    /// None if it never came to its end.
    pub wall_ms: Option<u64>,
    /// Actions that made something.
    pub built: usize,
    /// Taken from the store.
    pub restored: usize,
    /// Up to date.
    pub fresh: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped after a failure.
    pub skipped: usize,
}

/// One run of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its number in the record.
    pub id: i64,
    /// The target.
    pub label: String,
    /// Its kind.
    pub kind: String,
    /// The key it ran for.
    pub key: Digest,
    /// What it made, unless it failed.
    pub artifact: Option<Digest>,
    /// `built`, `failed` or `cancelled`.
    pub outcome: String,
    /// Of a failure, the message.
    pub message: Option<String>,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// Wall time.
    pub wall_ms: u64,
    /// User and system time.
    pub cpu_ms: u64,
    /// Peak resident memory.
    pub peak_bytes: u64,
    /// Threads it was given.
    pub threads: usize,
    /// What held its program to what its target declares; none where effai itself did the work.
    pub sandbox: Option<String>,
    /// Why it ran.
    pub reasons: Vec<String>,
    /// Its place in a build; none in rows from before builds were recorded.
    pub timing: Option<Timing>,
}

const RUN: &str = "SELECT id, label, kind, key, artifact, outcome, message, started_at, wall_ms, cpu_ms, peak_bytes,
                   threads, reasons, build, pool, ready_us, start_us, end_us, after, sandbox FROM actions";

/// Where the output of a target's last run is kept.
pub fn log_file(root: &Path, label: &Label) -> PathBuf {
    root.join(".effai/logs").join(format!("{}.log", label.as_str().replace('/', "~")))
}

impl Record {
    /// Begins a build's row. To be called when the first thing happens, so that a build with nothing to do
    /// writes nothing.
    pub fn begin_build(&self, started_at: &str, asked: &[String], jobs: usize) -> Result<BuildId, DbError> {
        let asked = serde_json::to_string(asked).expect("text");
        self.ask(|connection| {
            let sql = "INSERT INTO builds (started_at, asked, jobs) VALUES (?1, ?2, ?3)";
            connection.execute(sql, params![started_at, asked, jobs])?;
            Ok(connection.last_insert_rowid())
        })
    }

    /// Completes a build's row.
    pub fn end_build(&self, id: BuildId, summary: &Summary) -> Result<(), DbError> {
        let sql = "UPDATE builds SET wall_ms = ?2, built = ?3, restored = ?4, fresh = ?5, failed = ?6, skipped = ?7
                   WHERE id = ?1";
        let s = summary;
        let values = params![id, s.wall_ms, s.built, s.restored, s.fresh, s.failed, s.skipped];
        self.ask(|connection| connection.execute(sql, values))?;
        Ok(())
    }

    /// The last builds, newest first.
    pub fn builds(&self, most: usize) -> Result<Vec<BuildRow>, DbError> {
        let sql = "SELECT id, started_at, asked, jobs, wall_ms, built, restored, fresh, failed, skipped FROM builds
                   ORDER BY id DESC LIMIT ?1";
        self.all(sql, params![most], build_row)
    }

    /// One build.
    pub fn build(&self, id: BuildId) -> Result<Option<BuildRow>, DbError> {
        let sql = "SELECT id, started_at, asked, jobs, wall_ms, built, restored, fresh, failed, skipped FROM builds
                   WHERE id = ?1";
        self.ask(|c| c.query_row(sql, [id], build_row).optional())
    }

    /// The last build in which anything ran.
    pub fn last_build(&self) -> Result<Option<BuildRow>, DbError> {
        let sql = "SELECT max(build) FROM actions WHERE build IS NOT NULL";
        let id: Option<BuildId> = self.ask(|c| c.query_row(sql, [], |row| row.get(0)))?;
        id.map_or(Ok(None), |id| self.build(id))
    }

    /// What ran in a build, in the order of its begin.
    pub fn runs_of_build(&self, id: BuildId) -> Result<Vec<Run>, DbError> {
        self.all(&format!("{RUN} WHERE build = ?1 ORDER BY start_us, id"), params![id], run_row)
    }

    /// The last runs of a target, newest first.
    pub fn runs(&self, label: &Label, most: usize) -> Result<Vec<Run>, DbError> {
        self.all(&format!("{RUN} WHERE label = ?1 ORDER BY id DESC LIMIT ?2"), params![label.as_str(), most], run_row)
    }

    /// The last run that made an artifact of a label.
    pub fn maker(&self, label: &str, artifact: &Digest) -> Result<Option<Run>, DbError> {
        let sql = format!("{RUN} WHERE label = ?1 AND artifact = ?2 ORDER BY id DESC LIMIT 1");
        self.ask(|c| c.query_row(&sql, params![label, artifact.bytes()], run_row).optional())
    }

    /// The last value of each number a run gave.
    pub fn metrics(&self, run: i64) -> Result<Vec<(String, f64)>, DbError> {
        let sql = "SELECT name, value FROM metrics WHERE action = ?1 ORDER BY name, step, rowid";
        let all = self.all(sql, params![run], |row| Ok((row.get::<_, String>(0)?, row.get::<_, f64>(1)?)))?;
        let last: BTreeMap<String, f64> = all.into_iter().collect();
        Ok(last.into_iter().collect())
    }

    /// Keys this project has seen, as those of runs or of states, that begin with these hexadecimal digits.
    pub fn keys_with(&self, prefix: &str) -> Result<Vec<Digest>, DbError> {
        let sql = "SELECT key FROM actions WHERE lower(hex(key)) GLOB ?1 || '*'
                   UNION SELECT key FROM targets WHERE lower(hex(key)) GLOB ?1 || '*'";
        self.all(sql, params![prefix], |row| digest(row, 0))
    }

    /// The label a key ran for, the last time.
    pub fn label_of_key(&self, key: &Digest) -> Result<Option<String>, DbError> {
        let sql = "SELECT label FROM actions WHERE key = ?1 ORDER BY id DESC LIMIT 1";
        self.ask(|c| c.query_row(sql, [key.bytes()], |row| row.get(0)).optional())
    }

    /// A label whose run made this artifact.
    pub fn label_of_artifact(&self, artifact: &Digest) -> Result<Option<String>, DbError> {
        let sql = "SELECT label FROM actions WHERE artifact = ?1 ORDER BY id DESC LIMIT 1";
        self.ask(|c| c.query_row(sql, [artifact.bytes()], |row| row.get(0)).optional())
    }

    fn all<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, DbError> {
        self.ask(|connection| connection.prepare_cached(sql)?.query_map(values, read)?.collect())
    }
}

fn build_row(row: &Row<'_>) -> rusqlite::Result<BuildRow> {
    Ok(BuildRow {
        id: row.get(0)?,
        started_at: row.get(1)?,
        asked: texts(row.get(2)?),
        jobs: row.get(3)?,
        wall_ms: row.get(4)?,
        built: row.get(5)?,
        restored: row.get(6)?,
        fresh: row.get(7)?,
        failed: row.get(8)?,
        skipped: row.get(9)?,
    })
}

fn run_row(row: &Row<'_>) -> rusqlite::Result<Run> {
    let timing = match row.get::<_, Option<BuildId>>(13)? {
        None => None,
        Some(build) => Some(Timing {
            build,
            pool: row.get(14)?,
            ready_us: row.get(15)?,
            start_us: row.get(16)?,
            end_us: row.get(17)?,
            after: texts(row.get(18)?),
        }),
    };
    Ok(Run {
        id: row.get(0)?,
        label: row.get(1)?,
        kind: row.get(2)?,
        key: digest(row, 3)?,
        artifact: row.get::<_, Option<[u8; 32]>>(4)?.map(Digest::from_bytes),
        outcome: row.get(5)?,
        message: row.get(6)?,
        started_at: row.get(7)?,
        wall_ms: row.get(8)?,
        cpu_ms: row.get(9)?,
        peak_bytes: row.get(10)?,
        threads: row.get(11)?,
        sandbox: row.get(19)?,
        reasons: texts(row.get(12)?),
        timing,
    })
}

fn texts(json: String) -> Vec<String> {
    serde_json::from_str(&json).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::sqlite;

    #[test]
    fn a_record_of_the_first_schema_is_read_without_timings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("effai.db");
        let old = sqlite::open(&path, &super::super::MIGRATIONS[..1]).unwrap();
        let insert = "INSERT INTO actions (label, kind, key, outcome, started_at, wall_ms, cpu_ms, peak_bytes, threads,
                      backend, reasons) VALUES ('a', 'command', zeroblob(32), 'built', 'then', 7, 5, 3, 1, 'cpu', '[]')";
        old.execute(insert, []).unwrap();
        drop(old);
        let record = Record::at(&path);
        let runs = record.runs(&Label::new("a"), 10).unwrap();
        assert_eq!((runs.len(), runs[0].wall_ms, &runs[0].timing), (1, 7, &None));
        assert_eq!(record.last_build().unwrap(), None);
        assert_eq!(record.keys_with("0000").unwrap().len(), 1);
        assert_eq!(record.pasts().unwrap()["a"].wall_ms, 7);
    }

    #[test]
    fn a_build_that_was_killed_has_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::at(&dir.path().join("effai.db"));
        let first = record.begin_build("then", &["x".into()], 2).unwrap();
        let second = record.begin_build("later", &[], 4).unwrap();
        record.end_build(second, &Summary { built: 3, wall_ms: 9, ..Summary::default() }).unwrap();
        let builds = record.builds(10).unwrap();
        assert_eq!((builds[0].id, builds[0].wall_ms, builds[0].built), (second, Some(9), 3));
        assert_eq!((builds[1].id, builds[1].wall_ms, &builds[1].asked), (first, None, &vec!["x".to_owned()]));
    }
}
