-- What held an action's program to what its target declares: landlock, sandbox-exec, nothing (the system has neither), off
-- (`--sandbox off`). None where effai itself did the work, and for actions recorded before this schema.
ALTER TABLE actions ADD COLUMN sandbox TEXT;
