-- The store's index. Blobs and trees themselves are files beside it (cache-schema/README.md).

-- Which artifact a key stands for: what makes a target `cached`.
CREATE TABLE keys (
    key       BLOB PRIMARY KEY,   -- blake3 of the manifest, 32 bytes
    artifact  BLOB NOT NULL,      -- digest of the artifact's tree
    kind      TEXT NOT NULL,
    label     TEXT NOT NULL,      -- of the run that made it; for people, never for decisions
    manifest  TEXT NOT NULL,      -- JSON, what `explain` compares with
    metrics   TEXT NOT NULL,      -- JSON object, name -> last value
    size      INTEGER NOT NULL,   -- bytes of the artifact's files
    wall_ms   INTEGER NOT NULL,
    cpu_ms    INTEGER NOT NULL,
    peak_bytes INTEGER NOT NULL,
    backend   TEXT NOT NULL,
    built_at  TEXT NOT NULL,      -- RFC 3339, UTC
    used_at   TEXT NOT NULL
) WITHOUT ROWID;

-- How each blob looked when it was written: a linked file that was edited in place no longer does.
CREATE TABLE blobs (
    digest   BLOB PRIMARY KEY,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL
) WITHOUT ROWID;
