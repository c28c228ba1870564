-- Builds as a whole, and when in its build each action was ready, began and ended: what `log` and `trace` read.

-- A build that found nothing to do leaves no row: it writes nothing at all.
CREATE TABLE builds (
    id         INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,     -- RFC 3339, UTC
    asked      TEXT NOT NULL,     -- JSON array: what was named; empty for the default
    jobs       INTEGER NOT NULL,
    wall_ms    INTEGER,           -- none if it never came to its end
    built      INTEGER NOT NULL DEFAULT 0,
    restored   INTEGER NOT NULL DEFAULT 0,
    fresh      INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0
);

-- None of these for actions recorded before this schema. Times in microseconds from the build's begin.
ALTER TABLE actions ADD COLUMN build INTEGER REFERENCES builds (id);
ALTER TABLE actions ADD COLUMN pool TEXT;       -- where it waited for its turn: cpu, machine, network
ALTER TABLE actions ADD COLUMN ready_us INTEGER; -- everything under it was known
ALTER TABLE actions ADD COLUMN start_us INTEGER;
ALTER TABLE actions ADD COLUMN end_us INTEGER;
ALTER TABLE actions ADD COLUMN after TEXT;      -- JSON array: labels of this build's actions it stands on
CREATE INDEX actions_by_build ON actions (build) WHERE build IS NOT NULL;
