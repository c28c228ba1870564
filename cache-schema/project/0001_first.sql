-- What one project remembers; can be thrown away at any time, the store restores it.

-- Digests of the project's own files, believed only as fingerprint::evidence says.
CREATE TABLE files (
    path       BLOB PRIMARY KEY,  -- from the project's root, as bytes
    size       INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    ctime_ns   INTEGER NOT NULL,
    inode      INTEGER NOT NULL,
    read_at_ns INTEGER NOT NULL,
    digest     BLOB NOT NULL
) WITHOUT ROWID;

-- The last known state of each target.
CREATE TABLE targets (
    label    TEXT PRIMARY KEY,
    key      BLOB NOT NULL,
    artifact BLOB NOT NULL,
    manifest TEXT NOT NULL,       -- JSON
    left_out TEXT                 -- why an optional source is not in it; tried again on request
) WITHOUT ROWID;

-- What lies in out/, as it was put there.
CREATE TABLE outputs (
    label    TEXT NOT NULL,
    path     BLOB NOT NULL,       -- from out/LABEL
    artifact BLOB NOT NULL,
    size     INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (label, path)
) WITHOUT ROWID;

-- The record: one row for each action that ran.
CREATE TABLE actions (
    id         INTEGER PRIMARY KEY,
    label      TEXT NOT NULL,
    kind       TEXT NOT NULL,
    key        BLOB NOT NULL,
    artifact   BLOB,              -- none if it failed
    outcome    TEXT NOT NULL,     -- built, failed, cancelled
    message    TEXT,
    started_at TEXT NOT NULL,     -- RFC 3339, UTC
    wall_ms    INTEGER NOT NULL,
    cpu_ms     INTEGER NOT NULL,
    peak_bytes INTEGER NOT NULL,
    threads    INTEGER NOT NULL,
    backend    TEXT NOT NULL,
    reasons    TEXT NOT NULL      -- JSON array: why it ran
);
CREATE INDEX actions_by_label ON actions (label, id);

CREATE TABLE metrics (
    action INTEGER NOT NULL REFERENCES actions (id),
    name   TEXT NOT NULL,
    step   INTEGER,
    value  REAL NOT NULL
);
CREATE INDEX metrics_by_action ON metrics (action, name);
