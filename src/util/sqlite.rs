//! Opening a SQLite database and bringing its schema up to date.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::fault;
use super::fs::{self, FsError};
use crate::failure::Failure;

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// SQLite's complaint.
    #[error("the database {}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Written by a later effai.
    #[error("the database {} has schema {found}, this effai knows up to {known}", path.display())]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// The newest known here.
        known: usize,
    },
    /// Its directory.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        let failure = Failure::environment(error.to_string());
        match &error {
            DbError::TooNew { .. } => failure.help("use a newer effai, or move the directory away to begin anew"),
            DbError::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => {
                    failure.help("the disk is full: free some space and build again")
                }
                Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                    failure.help("move the file away: it is rebuilt from what the store holds")
                }
                _ => failure,
            },
            DbError::Fs(_) => failure,
        }
    }
}

/// Opens a database and runs the migrations it lacks, each in a transaction. `PRAGMA user_version` counts them.
pub fn open(path: &Path, migrations: &[&str]) -> Result<Connection, DbError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let wrap = |source| DbError::Sqlite { path: path.to_owned(), source };
    fault::step();
    let mut connection = Connection::open(path).map_err(wrap)?;
    connection.busy_timeout(std::time::Duration::from_secs(30)).map_err(wrap)?;
    let version = |c: &Connection| c.query_row("PRAGMA user_version", [], |row| row.get::<_, usize>(0));
    if version(&connection).map_err(wrap)? != migrations.len() {
        // Write-ahead logging lets readers go on while another process writes.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(wrap)?;
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Exclusive).map_err(wrap)?;
        let done = version(&transaction).map_err(wrap)?;
        if done > migrations.len() {
            return Err(DbError::TooNew { path: path.to_owned(), found: done, known: migrations.len() });
        }
        fault::step();
        for migration in &migrations[done..] {
            transaction.execute_batch(migration).map_err(wrap)?;
        }
        transaction.pragma_update(None, "user_version", migrations.len()).map_err(wrap)?;
        fault::step();
        transaction.commit().map_err(wrap)?;
        fault::step();
    }
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(wrap)?;
    Ok(connection)
}
