//! What collection and verification ask of the index: all keys at once, the last use of each, forgetting.

use rusqlite::params;

use super::{BlobEvidence, Index, digest};
use crate::fingerprint::Digest;
use crate::util::sqlite::{self, DbError};

/// A key, as collection and verification see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The key.
    pub key: Digest,
    /// The artifact it stands for.
    pub artifact: Digest,
    /// The label of the run that made it; for people.
    pub label: String,
    /// When it was last built, or taken from the store instead of being built.
    pub used_at: jiff::Timestamp,
}

impl Index {
    /// All keys, the least recently used first.
    pub fn keys(&self) -> Result<Vec<KeyUse>, DbError> {
        self.ask(|connection| {
            let mut statement = connection.prepare("SELECT key, artifact, label, used_at FROM keys")?;
            let rows = statement.query_map([], |row| {
                let used_at = row.get::<_, String>(3)?.parse().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
                Ok(KeyUse { key: digest(row, 0)?, artifact: digest(row, 1)?, label: row.get(2)?, used_at })
            })?;
            let mut keys: Vec<KeyUse> = rows.collect::<Result<_, _>>()?;
            // As times and not as texts: a fraction that ends in zeros is written shorter.
            keys.sort_by_key(|k| (k.used_at, k.key));
            Ok(keys)
        })
    }

    /// Reads all of the database and holds its parts against each other.
    pub fn check(&self) -> Result<(), DbError> {
        self.ask(|connection| Ok(sqlite::check(connection, &self.path)))?
    }

    /// All evidence.
    pub(in crate::store) fn evidence(&self) -> Result<Vec<BlobEvidence>, DbError> {
        self.ask(|connection| {
            let mut statement = connection.prepare("SELECT digest, size, mtime_ns FROM blobs")?;
            let rows = statement.query_map([], |row| Ok((digest(row, 0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect()
        })
    }

    /// Notes that artifacts of these keys were used. Losing this only changes what is forgotten first, so its failure
    /// is not one.
    pub fn touch(&self, keys: &[Digest]) {
        if keys.is_empty() {
            return;
        }
        let now = jiff::Timestamp::now().to_string();
        let _ = self.ask(|connection| {
            let transaction = connection.unchecked_transaction()?;
            for key in keys {
                let sql = "UPDATE keys SET used_at = ?2 WHERE key = ?1";
                transaction.prepare_cached(sql)?.execute(params![key.bytes(), now])?;
            }
            transaction.commit()
        });
    }

    /// Forgets keys, and the evidence of blobs that are about to go. On disk before this returns: were a
    /// blob gone and its key back after a power cut, the key would promise what is not there.
    pub(in crate::store) fn forget_all(&self, keys: &[Digest], blobs: &[Digest]) -> Result<(), DbError> {
        self.ask(|connection| {
            connection.pragma_update(None, "synchronous", "FULL")?;
            let transaction = connection.unchecked_transaction()?;
            for key in keys {
                transaction.prepare_cached("DELETE FROM keys WHERE key = ?1")?.execute([key.bytes()])?;
            }
            for blob in blobs {
                transaction.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?.execute([blob.bytes()])?;
            }
            transaction.commit()?;
            connection.pragma_update(None, "synchronous", "NORMAL")
        })
    }
}
