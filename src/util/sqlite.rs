//! Opening a SQLite database and bringing its schema up to date.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

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
    /// Its parts do not fit together.
    #[error("the database {} is damaged: {said}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// SQLite's first complaint.
        said: String,
    },
    /// Its directory.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl DbError {
    /// The failure, with the next step.
    pub fn failure(&self) -> Failure {
        let failure = Failure::environment(self.to_string());
        match self {
            DbError::TooNew { path, .. } => failure.help(format!("use a newer effai; {}", begin_anew(path))),
            DbError::Damaged { path, .. } => failure.help(begin_anew(path)),
            DbError::Sqlite { path, source } => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => failure.help("the disk is full: free some space and build again"),
                Some(ErrorCode::SystemIoFailure) => {
                    failure.help("the disk is full or failing: free some space and build again")
                }
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                    failure.help("check that it is a file, who owns it and whether its directory is writable")
                }
                // Other words of SQLite on statements that are all ours, and values that are not what was written.
                None | Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => {
                    failure.help(begin_anew(path))
                }
                Some(_) => failure,
            },
            DbError::Fs(_) => failure,
        }
    }
}

/// Both databases only remember: what they knew is found again or made anew.
fn begin_anew(path: &Path) -> String {
    format!("`rm '{}'*` takes it away: builds go on without what it remembered", path.display())
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Fs(error) => error.into(),
            error => error.failure(),
        }
    }
}

/// Reads all of a database and holds its parts against each other.
pub fn check(connection: &Connection, path: &Path) -> Result<(), DbError> {
    let said: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|source| DbError::Sqlite { path: path.to_owned(), source })?;
    if said == "ok" { Ok(()) } else { Err(DbError::Damaged { path: path.to_owned(), said: said.replace('\n', " ") }) }
}

/// Opens a database and runs the migrations it lacks, each in a transaction. `PRAGMA user_version` counts them.
pub fn open(path: &Path, migrations: &[&str]) -> Result<Connection, DbError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let wrap = |source| DbError::Sqlite { path: path.to_owned(), source };
    // One at a time: to switch to write-ahead logging SQLite waits for nobody, not even for one that reads the version.
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let turn = fs::open(dir)?;
    fs::at("lock", dir, turn.lock())?;
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
    drop(turn);
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(wrap)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_open_a_new_database_at_once() {
        for _ in 0..40 {
            let dir = tempfile::tempdir().expect("made");
            let path = dir.path().join("new/some.db");
            let start = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        let connection = open(&path, &["CREATE TABLE t (n)"]).expect("opened");
                        connection.execute("INSERT INTO t VALUES (1)", []).expect("written");
                    });
                }
            });
        }
    }
}
