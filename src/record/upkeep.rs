//! What the store's upkeep asks of a project's record: which artifacts it stands on, and to let some go.

use super::{Record, digest};
use crate::fingerprint::Digest;
use crate::util::sqlite::DbError;

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
