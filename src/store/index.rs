//! The store's SQLite index: keys to artifacts, and how blobs looked when written.

mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::fingerprint::{Digest, Manifest};
use crate::util::fault;
use crate::util::sqlite::{self, DbError};

pub use upkeep::KeyUse;

const MIGRATIONS: &[&str] = &[include_str!("../../cache-schema/store/0001_first.sql")];

/// The index; many threads and processes may ask it. Opened when it is first asked.
#[derive(Clone)]
pub struct Index {
    connection: Arc<Mutex<Option<Connection>>>,
    path: Arc<PathBuf>,
}

/// Digest, size and mtime in ns: how a blob looked when it was written; of a packed one, its pack.
pub type BlobEvidence = (Digest, u64, i64);

/// What is known of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRow {
    /// The artifact it stands for.
    pub artifact: Digest,
    /// The kind of the target that made it.
    pub kind: String,
    /// The label it had then; for people.
    pub label: String,
    /// Its facts.
    pub manifest: Manifest,
    /// Last value of each metric.
    pub metrics: std::collections::BTreeMap<String, f64>,
    /// Bytes of its files.
    pub size: u64,
    /// Wall time of the run that made it.
    pub wall_ms: u64,
    /// CPU time of that run.
    pub cpu_ms: u64,
    /// Peak memory of that run.
    pub peak_bytes: u64,
    /// The backend that computed it.
    pub backend: String,
}

/// What the index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Keys known.
    pub keys: usize,
    /// Different artifacts among them.
    pub artifacts: usize,
}

impl Index {
    pub(super) fn at(path: &Path) -> Self {
        Self { connection: Arc::default(), path: Arc::new(path.to_owned()) }
    }

    /// Asks the database; its complaint gets the path.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let mut slot = self.connection.lock().expect("no panic holds this");
        let connection = match &mut *slot {
            Some(connection) => connection,
            none => none.insert(sqlite::open(&self.path, MIGRATIONS)?),
        };
        fault::step();
        let answer = ask(connection).map_err(|source| DbError::Sqlite { path: self.path.to_path_buf(), source });
        fault::step();
        answer
    }

    /// The artifact of a key.
    pub fn artifact(&self, key: &Digest) -> Result<Option<Digest>, DbError> {
        self.ask(|c| {
            let mut statement = c.prepare_cached("SELECT artifact FROM keys WHERE key = ?1")?;
            statement.query_row([key.bytes()], |row| digest(row, 0)).optional()
        })
    }

    /// All that is known of a key.
    pub fn get(&self, key: &Digest) -> Result<Option<KeyRow>, DbError> {
        let sql = "SELECT artifact, kind, label, manifest, metrics, size, wall_ms, cpu_ms, peak_bytes, backend
                   FROM keys WHERE key = ?1";
        let read = |row: &Row<'_>| {
            Ok(KeyRow {
                artifact: digest(row, 0)?,
                kind: row.get(1)?,
                label: row.get(2)?,
                manifest: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
                metrics: serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default(),
                size: row.get(5)?,
                wall_ms: row.get(6)?,
                cpu_ms: row.get(7)?,
                peak_bytes: row.get(8)?,
                backend: row.get(9)?,
            })
        };
        self.ask(|c| c.query_row(sql, [key.bytes()], read).optional())
    }

    /// Bytes of the files of a key's artifact.
    pub fn size(&self, key: &Digest) -> Result<Option<u64>, DbError> {
        self.ask(|c| {
            let mut statement = c.prepare_cached("SELECT size FROM keys WHERE key = ?1")?;
            statement.query_row([key.bytes()], |row| row.get(0)).optional()
        })
    }

    /// Bytes of all blobs that are remembered: the store's size without a walk.
    pub fn bytes(&self) -> Result<u64, DbError> {
        self.ask(|c| c.query_row("SELECT coalesce(sum(size), 0) FROM blobs", [], |row| row.get(0)))
    }

    /// The keys that begin with these hexadecimal digits, lower case.
    pub fn keys_with(&self, digits: &str) -> Result<Vec<Digest>, DbError> {
        self.ask(|c| {
            let mut statement = c.prepare_cached("SELECT key FROM keys WHERE lower(hex(key)) GLOB ?1 || '*'")?;
            statement.query_map([digits], |row| digest(row, 0))?.collect()
        })
    }

    /// Records finished keys and the evidence of new blobs, in one transaction. The blobs must be on the disk.
    pub fn put(&self, keys: &[(Digest, KeyRow)], blobs: &[BlobEvidence]) -> Result<(), DbError> {
        let now = jiff::Timestamp::now().to_string();
        self.ask(|connection| {
            let transaction = connection.unchecked_transaction()?;
            insert_blobs(&transaction, blobs)?;
            let sql = "INSERT OR REPLACE INTO keys VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)";
            for (key, row) in keys {
                transaction.prepare_cached(sql)?.execute(params![
                    key.bytes(),
                    row.artifact.bytes(),
                    row.kind,
                    row.label,
                    serde_json::to_string(&row.manifest).expect("facts are plain"),
                    serde_json::to_string(&row.metrics).expect("metrics are plain"),
                    row.size,
                    row.wall_ms,
                    row.cpu_ms,
                    row.peak_bytes,
                    row.backend,
                    now
                ])?;
            }
            transaction.commit()
        })
    }

    /// Forgets a key whose bytes are gone.
    pub fn forget(&self, key: &Digest) -> Result<(), DbError> {
        self.ask(|c| c.execute("DELETE FROM keys WHERE key = ?1", [key.bytes()]))?;
        Ok(())
    }

    /// Size and mtime of blobs as last seen; none for one that is not remembered.
    pub(super) fn blobs(&self, digests: &[Digest]) -> Vec<Option<(u64, i64)>> {
        let found = self.ask(|c| {
            let mut statement = c.prepare_cached("SELECT size, mtime_ns FROM blobs WHERE digest = ?1")?;
            let mut read = |digest: &Digest| {
                statement.query_row([digest.bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            };
            digests.iter().map(&mut read).collect()
        });
        found.unwrap_or_else(|_| vec![None; digests.len()])
    }

    /// Remembers how blobs look. Losing this only costs a hash, so its failure is not one.
    pub fn remember_blobs(&self, blobs: &[BlobEvidence]) {
        if !blobs.is_empty() {
            let _ = self.put(&[], blobs);
        }
    }

    /// What the index holds.
    pub fn usage(&self) -> Result<Usage, DbError> {
        let read = |row: &Row<'_>| Ok(Usage { keys: row.get(0)?, artifacts: row.get(1)? });
        self.ask(|c| c.query_row("SELECT count(*), count(DISTINCT artifact) FROM keys", [], read))
    }
}

fn insert_blobs(connection: &Connection, blobs: &[(Digest, u64, i64)]) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO blobs VALUES (?1, ?2, ?3)")?;
    for (digest, size, mtime_ns) in blobs {
        statement.execute(params![digest.bytes(), size, mtime_ns])?;
    }
    Ok(())
}

/// A digest column.
fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get::<_, [u8; 32]>(column).map(Digest::from_bytes)
}
