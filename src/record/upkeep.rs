//! What the store's upkeep asks of a project's record: which artifacts it stands on, and to let some go.

use super::{Record, digest};
use crate::fingerprint::Digest;
use crate::plan::Label;
use crate::util::sqlite::{self, DbError};

impl Record {
    /// The artifacts of the last known states of all targets, and of what lies in `out/`.
    pub fn artifacts(&self) -> Result<Vec<Digest>, DbError> {
        self.ask(|connection| {
            let sql = "SELECT artifact FROM targets UNION SELECT artifact FROM outputs";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| digest(row, 0))?;
            rows.collect()
        })
    }

    /// Reads all of the database and holds its parts against each other.
    pub fn check(&self) -> Result<(), DbError> {
        sqlite::check(self.open()?, &self.path)
    }

    /// Labels and keys of actions whose last run failed.
    pub fn failed(&self) -> Result<Vec<(Label, Digest)>, DbError> {
        self.ask(|connection| {
            let sql = "SELECT label, key FROM actions
                       WHERE outcome = 'failed' AND id IN (SELECT max(id) FROM actions GROUP BY label, key)";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok((Label::new(row.get::<_, String>(0)?), digest(row, 1)?)))?;
            rows.collect()
        })
    }

    /// Forgets the states that name these artifacts: their targets run again unless a store has them.
    pub fn forget_artifacts(&self, artifacts: &[Digest]) -> Result<(), DbError> {
        self.ask(|connection| {
            let transaction = connection.unchecked_transaction()?;
            for artifact in artifacts {
                let sql = "DELETE FROM targets WHERE artifact = ?1";
                transaction.prepare_cached(sql)?.execute([artifact.bytes()])?;
            }
            transaction.commit()
        })
    }
}
