//! What happened in one project: the state of each target, one row for each action, evidence of files.
//!
//! Everything in here can be thrown away: keys and artifacts are found again in the store, digests are
//! computed again. Only the history of runs is lost with it.

mod history;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::fingerprint::evidence::Stat;
use crate::fingerprint::{Digest, Manifest};
use crate::plan::Label;
use crate::store::Placed;
use crate::util::sqlite::{self, DbError};

pub use history::{BuildId, BuildRow, Run, Timing, log_file};

const MIGRATIONS: &[&str] = &[
    include_str!("../../cache-schema/project/0001_first.sql"),
    include_str!("../../cache-schema/project/0002_builds.sql"),
];

/// A project's own database, `.effai/effai.db`.
pub struct Record {
    connection: Connection,
    path: PathBuf,
}

/// The last known state of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetState {
    /// The key of its last good run, or of what was restored.
    pub key: Digest,
    /// The artifact of that key.
    pub artifact: Digest,
    /// The facts of that key.
    pub manifest: Manifest,
    /// Why an optional source is not in it.
    pub left_out: Option<String>,
}

/// One action, as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionRow {
    /// The target.
    pub label: Label,
    /// Its kind.
    pub kind: String,
    /// The key it ran for.
    pub key: Digest,
    /// What it made, unless it failed.
    pub artifact: Option<Digest>,
    /// `built`, `failed` or `cancelled`.
    pub outcome: &'static str,
    /// Of a failure, the message.
    pub message: Option<String>,
    /// When it began, RFC 3339 in UTC.
    pub started_at: String,
    /// Wall time.
    pub wall_ms: u64,
    /// User and system time.
    pub cpu_ms: u64,
    /// Peak resident memory.
    pub peak_bytes: u64,
    /// Threads it was given.
    pub threads: usize,
    /// The backend that computed it.
    pub backend: String,
    /// Why it ran.
    pub reasons: Vec<String>,
    /// Every number it gave: name, step, value.
    pub metrics: Vec<(String, Option<u64>, f64)>,
    /// Its place in its build.
    pub timing: Timing,
}

/// How a target's last run went, for estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Past {
    /// Wall time.
    pub wall_ms: u64,
    /// Peak resident memory.
    pub peak_bytes: u64,
}

impl Record {
    /// Opens the project's database, making it if need be.
    pub fn open(path: &Path) -> Result<Self, DbError> {
        Ok(Self { connection: sqlite::open(path, MIGRATIONS)?, path: path.to_owned() })
    }

    fn wrap(&self, source: rusqlite::Error) -> DbError {
        DbError::Sqlite { path: self.path.clone(), source }
    }

    /// The state of every target ever built here.
    pub fn targets(&self) -> Result<BTreeMap<Label, TargetState>, DbError> {
        let read = || {
            let mut statement =
                self.connection.prepare("SELECT label, key, artifact, manifest, left_out FROM targets")?;
            let rows = statement.query_map([], |row| {
                let state = TargetState {
                    key: digest(row, 1)?,
                    artifact: digest(row, 2)?,
                    manifest: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
                    left_out: row.get(4)?,
                };
                Ok((Label::new(row.get::<_, String>(0)?), state))
            })?;
            rows.collect::<Result<_, _>>()
        };
        read().map_err(|e| self.wrap(e))
    }

    /// Records a target's new state.
    pub fn put_target(&self, label: &Label, state: &TargetState) -> Result<(), DbError> {
        let manifest = serde_json::to_string(&state.manifest).expect("facts are plain");
        let values = params![label.as_str(), state.key.bytes(), state.artifact.bytes(), manifest, state.left_out];
        self.connection
            .execute("INSERT OR REPLACE INTO targets VALUES (?1, ?2, ?3, ?4, ?5)", values)
            .map_err(|e| self.wrap(e))?;
        Ok(())
    }

    /// What lies in `out/` for a target, and of which artifact it is.
    pub fn outputs(&self, label: &Label) -> Result<Vec<(Digest, Placed)>, DbError> {
        let read = || {
            let mut statement = self
                .connection
                .prepare_cached("SELECT artifact, path, size, mtime_ns FROM outputs WHERE label = ?1")?;
            let rows = statement.query_map([label.as_str()], |row| {
                let path = PathBuf::from(std::ffi::OsStr::from_bytes(&row.get::<_, Vec<u8>>(1)?));
                Ok((digest(row, 0)?, Placed { path, size: row.get(2)?, mtime_ns: row.get(3)? }))
            })?;
            rows.collect::<Result<_, _>>()
        };
        read().map_err(|e| self.wrap(e))
    }

    /// Records what was put into `out/` for a target.
    pub fn put_outputs(&self, label: &Label, artifact: &Digest, placed: &[Placed]) -> Result<(), DbError> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.execute("DELETE FROM outputs WHERE label = ?1", [label.as_str()])?;
            for file in placed {
                transaction.execute(
                    "INSERT INTO outputs VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        label.as_str(),
                        file.path.as_os_str().as_bytes(),
                        artifact.bytes(),
                        file.size,
                        file.mtime_ns
                    ],
                )?;
            }
            transaction.commit()
        };
        write().map_err(|e| self.wrap(e))
    }

    /// The remembered digest of a file, what it looked like, and when it was read.
    pub fn file(&self, path: &Path) -> Option<(Stat, i64, Digest)> {
        let sql = "SELECT size, mtime_ns, ctime_ns, inode, read_at_ns, digest FROM files WHERE path = ?1";
        let mut statement = self.connection.prepare_cached(sql).ok()?;
        let read = |row: &Row<'_>| {
            let stat = Stat { size: row.get(0)?, mtime_ns: row.get(1)?, ctime_ns: row.get(2)?, inode: row.get(3)? };
            Ok((stat, row.get(4)?, digest(row, 5)?))
        };
        statement.query_row([path.as_os_str().as_bytes()], read).optional().ok()?
    }

    /// Remembers the digest of a file. Losing this only costs a hash.
    pub fn put_file(&self, path: &Path, stat: &Stat, read_at_ns: i64, digest: &Digest) {
        let _ = self.connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                path.as_os_str().as_bytes(),
                stat.size,
                stat.mtime_ns,
                stat.ctime_ns,
                stat.inode,
                read_at_ns,
                digest.bytes()
            ],
        );
    }

    /// Adds one action and its numbers.
    pub fn add_action(&self, row: &ActionRow) -> Result<(), DbError> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.execute(
                "INSERT INTO actions (label, kind, key, artifact, outcome, message, started_at, wall_ms, cpu_ms,
                 peak_bytes, threads, backend, reasons, build, pool, ready_us, start_us, end_us, after)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
                params![
                    row.label.as_str(),
                    row.kind,
                    row.key.bytes(),
                    row.artifact.map(|d| *d.bytes()),
                    row.outcome,
                    row.message,
                    row.started_at,
                    row.wall_ms,
                    row.cpu_ms,
                    row.peak_bytes,
                    row.threads,
                    row.backend,
                    serde_json::to_string(&row.reasons).expect("text"),
                    row.timing.build,
                    row.timing.pool,
                    row.timing.ready_us,
                    row.timing.start_us,
                    row.timing.end_us,
                    serde_json::to_string(&row.timing.after).expect("text"),
                ],
            )?;
            let id = transaction.last_insert_rowid();
            {
                let mut statement = transaction.prepare_cached("INSERT INTO metrics VALUES (?1, ?2, ?3, ?4)")?;
                for (name, step, value) in &row.metrics {
                    statement.execute(params![id, name, step, value])?;
                }
            }
            transaction.commit()
        };
        write().map_err(|e| self.wrap(e))
    }

    /// How long a target's last good run took and what memory it needed.
    pub fn past(&self, label: &Label) -> Option<Past> {
        let sql =
            "SELECT wall_ms, peak_bytes FROM actions WHERE label = ?1 AND outcome = 'built' ORDER BY id DESC LIMIT 1";
        let read = |row: &Row<'_>| Ok(Past { wall_ms: row.get(0)?, peak_bytes: row.get(1)? });
        self.connection.query_row(sql, [label.as_str()], read).optional().ok()?
    }
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get::<_, [u8; 32]>(column).map(Digest::from_bytes)
}
