//! What happened in one project: the state of each target, one row for each action, evidence of files.
//!
//! Everything in here can be thrown away: keys and artifacts are found again in the store, digests are
//! computed again. Only the history of runs is lost with it.

mod history;
mod upkeep;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::fingerprint::evidence::{SeenFile, Stat};
use crate::fingerprint::{Digest, Fact, Manifest};
use crate::plan::Label;
use crate::store::Placed;
use crate::util::fault;
use crate::util::sqlite::{self, DbError};

pub use history::{BuildId, BuildRow, Run, Timing, log_file};

const MIGRATIONS: &[&str] = &[
    include_str!("../../cache-schema/project/0001_first.sql"),
    include_str!("../../cache-schema/project/0002_facts_of_files.sql"),
    include_str!("../../cache-schema/project/0003_builds.sql"),
    include_str!("../../cache-schema/project/0004_sandbox.sql"),
];

/// A project's own database, `.effai/effai.db`. Opened when it is first asked: a build with nothing to do never does.
pub struct Record {
    connection: OnceCell<Connection>,
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
    /// What held its program to what its target declares; none where effai itself did the work.
    pub sandbox: Option<&'static str>,
    /// Why it ran.
    pub reasons: Vec<String>,
    /// Every number it gave: name, step, value.
    pub metrics: Vec<(String, Option<u64>, f64)>,
    /// Its place in its build.
    pub timing: Timing,
}

/// What happened since the record was last written.
#[derive(Debug, Default)]
pub struct Happened {
    /// New states of targets.
    pub targets: Vec<(Label, TargetState)>,
    /// What was put into `out/`: of which artifact, and how it looks.
    pub outputs: Vec<(Label, Digest, Vec<Placed>)>,
    /// Actions that ended.
    pub actions: Vec<ActionRow>,
}

impl Happened {
    /// Whether nothing did.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.outputs.is_empty() && self.actions.is_empty()
    }
}

/// How a target's last run went, for estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Past {
    /// Wall time.
    pub wall_ms: u64,
    /// Peak resident memory.
    pub peak_bytes: u64,
}

impl Past {
    /// Of a target that never ran here: long enough that what stands on many such is begun first.
    pub const UNKNOWN: Self = Self { wall_ms: 1000, peak_bytes: 0 };
}

impl Record {
    /// The project's database, made when it is first asked.
    pub fn at(path: &Path) -> Self {
        Self { connection: OnceCell::new(), path: path.to_owned() }
    }

    fn open(&self) -> Result<&Connection, DbError> {
        if let Some(connection) = self.connection.get() {
            return Ok(connection);
        }
        let connection = sqlite::open(&self.path, MIGRATIONS)?;
        Ok(self.connection.get_or_init(|| connection))
    }

    /// Asks the database; its complaint gets the path.
    fn ask<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DbError> {
        let connection = self.open()?;
        fault::step();
        let answer = ask(connection).map_err(|source| DbError::Sqlite { path: self.path.clone(), source });
        fault::step();
        answer
    }

    /// The state of a target when it was last built here.
    pub fn target(&self, label: &Label) -> Result<Option<TargetState>, DbError> {
        self.ask(|connection| {
            let sql = "SELECT key, artifact, manifest, left_out FROM targets WHERE label = ?1";
            let read = |row: &Row<'_>| {
                Ok(TargetState {
                    key: digest(row, 0)?,
                    artifact: digest(row, 1)?,
                    manifest: serde_json::from_str(&row.get::<_, String>(2)?).unwrap_or_default(),
                    left_out: row.get(3)?,
                })
            };
            connection.prepare_cached(sql)?.query_row([label.as_str()], read).optional()
        })
    }

    /// Records what happened, all or nothing.
    pub fn put(&self, happened: &Happened) -> Result<(), DbError> {
        self.ask(|connection| {
            let transaction = connection.unchecked_transaction()?;
            for (label, state) in &happened.targets {
                let manifest = serde_json::to_string(&state.manifest).expect("facts are plain");
                transaction.prepare_cached("INSERT OR REPLACE INTO targets VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
                    params![label.as_str(), state.key.bytes(), state.artifact.bytes(), manifest, state.left_out],
                )?;
            }
            happened
                .outputs
                .iter()
                .try_for_each(|(label, artifact, placed)| put_outputs(&transaction, label, artifact, placed))?;
            happened.actions.iter().try_for_each(|row| add_action(&transaction, row))?;
            transaction.commit()
        })
    }

    /// What lies in `out/` for a target, and of which artifact it is.
    pub fn outputs(&self, label: &Label) -> Result<Vec<(Digest, Placed)>, DbError> {
        self.ask(|connection| {
            let sql = "SELECT artifact, path, size, mtime_ns FROM outputs WHERE label = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([label.as_str()], |row| {
                let path = PathBuf::from(std::ffi::OsStr::from_bytes(&row.get::<_, Vec<u8>>(1)?));
                Ok((digest(row, 0)?, Placed { path, size: row.get(2)?, mtime_ns: row.get(3)? }))
            })?;
            rows.collect()
        })
    }

    /// Labels that something lies in `out/` for.
    pub fn delivered(&self) -> Result<Vec<String>, DbError> {
        self.ask(|connection| {
            let mut statement = connection.prepare("SELECT DISTINCT label FROM outputs ORDER BY label")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Every file whose digest is remembered.
    pub fn files(&self) -> Result<Vec<SeenFile>, DbError> {
        self.ask(|connection| {
            let sql =
                "SELECT path, size, mtime_ns, ctime_ns, inode, read_at_ns, fact FROM files WHERE fact IS NOT NULL";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                let path = PathBuf::from(std::ffi::OsStr::from_bytes(&row.get::<_, Vec<u8>>(0)?));
                let stat = Stat { size: row.get(1)?, mtime_ns: row.get(2)?, ctime_ns: row.get(3)?, inode: row.get(4)? };
                let fact = serde_json::from_str(&row.get::<_, String>(6)?).unwrap_or(Fact::Missing);
                // What was not there has no looks to compare.
                let stat = (fact != Fact::Missing).then_some(stat);
                Ok(SeenFile { path, stat, at_ns: row.get(5)?, fact })
            })?;
            rows.collect()
        })
    }

    /// Remembers files as they were read.
    pub fn put_files(&self, files: &[SeenFile]) -> Result<(), DbError> {
        if files.is_empty() {
            return Ok(());
        }
        self.ask(|connection| {
            let transaction = connection.unchecked_transaction()?;
            let sql = "INSERT OR REPLACE INTO files (path, size, mtime_ns, ctime_ns, inode, read_at_ns, digest, fact)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, x'', ?7)";
            for file in files {
                let stat = file.stat.unwrap_or_default();
                transaction.prepare_cached(sql)?.execute(params![
                    file.path.as_os_str().as_bytes(),
                    stat.size,
                    stat.mtime_ns,
                    stat.ctime_ns,
                    stat.inode,
                    file.at_ns,
                    serde_json::to_string(&file.fact).expect("a fact is plain"),
                ])?;
            }
            transaction.commit()
        })
    }

    /// How each target's last good run went.
    pub fn pasts(&self) -> Result<HashMap<String, Past>, DbError> {
        self.ask(|connection| {
            let sql = "SELECT label, wall_ms, peak_bytes FROM actions
                       WHERE id IN (SELECT max(id) FROM actions WHERE outcome = 'built' GROUP BY label)";
            let mut statement = connection.prepare(sql)?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, Past { wall_ms: row.get(1)?, peak_bytes: row.get(2)? }));
            let rows = statement.query_map([], read)?;
            rows.collect()
        })
    }

    /// How long a target's last good run took and what memory it needed.
    pub fn past(&self, label: &Label) -> Option<Past> {
        let sql =
            "SELECT wall_ms, peak_bytes FROM actions WHERE label = ?1 AND outcome = 'built' ORDER BY id DESC LIMIT 1";
        let read = |row: &Row<'_>| Ok(Past { wall_ms: row.get(0)?, peak_bytes: row.get(1)? });
        let ask =
            |connection: &Connection| connection.prepare_cached(sql)?.query_row([label.as_str()], read).optional();
        self.ask(ask).ok()?
    }
}

fn put_outputs(transaction: &Connection, label: &Label, artifact: &Digest, placed: &[Placed]) -> rusqlite::Result<()> {
    transaction.prepare_cached("DELETE FROM outputs WHERE label = ?1")?.execute([label.as_str()])?;
    for file in placed {
        transaction.prepare_cached("INSERT INTO outputs VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            label.as_str(),
            file.path.as_os_str().as_bytes(),
            artifact.bytes(),
            file.size,
            file.mtime_ns
        ])?;
    }
    Ok(())
}

fn add_action(transaction: &Connection, row: &ActionRow) -> rusqlite::Result<()> {
    let sql = "INSERT INTO actions (label, kind, key, artifact, outcome, message, started_at, wall_ms, cpu_ms,
               peak_bytes, threads, backend, reasons, build, pool, ready_us, start_us, end_us, after, sandbox)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)";
    transaction.prepare_cached(sql)?.execute(params![
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
        row.sandbox,
    ])?;
    let id = transaction.last_insert_rowid();
    for (name, step, value) in &row.metrics {
        let sql = "INSERT INTO metrics VALUES (?1, ?2, ?3, ?4)";
        transaction.prepare_cached(sql)?.execute(params![id, name, step, value])?;
    }
    Ok(())
}

fn digest(row: &Row<'_>, column: usize) -> rusqlite::Result<Digest> {
    row.get::<_, [u8; 32]>(column).map(Digest::from_bytes)
}
