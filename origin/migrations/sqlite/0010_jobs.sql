-- Work that a request leaves for later. A row is written in the transaction of what it follows from, and removed when it is done.
CREATE TABLE jobs (
    id         BLOB PRIMARY KEY CHECK (length(id) = 16),
    -- No list of kinds here: a worker puts off what a newer version has queued.
    kind       TEXT NOT NULL CHECK (length(kind) BETWEEN 1 AND 32),
    user_id    BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Of a delivery; no reference: a job whose item is gone finds nothing to do.
    item_id    BLOB CHECK (length(item_id) = 16),
    -- The request that it follows from (W3C Trace Context).
    trace_id   TEXT CHECK (length(trace_id) = 32),
    created_at INTEGER NOT NULL,
    -- Whoever takes the job moves this on: until then it is theirs.
    due_at     INTEGER NOT NULL,
    -- Counts the beginnings; who ends a job must have begun this one.
    tries      INTEGER NOT NULL CHECK (tries >= 0),
    last_error TEXT CHECK (length(last_error) <= 500),
    -- Given up: for an operator to look at.
    dead_at    INTEGER
) STRICT;
-- Query: what is due, oldest first; and how much waits.
CREATE INDEX jobs_due ON jobs (due_at) WHERE dead_at IS NULL;
-- Query: what was given up, and its sweep.
CREATE INDEX jobs_dead ON jobs (dead_at, id) WHERE dead_at IS NOT NULL;
-- Query: the end of an account.
CREATE INDEX jobs_of_user ON jobs (user_id);

-- When the last mail with a proof was asked for; it bounds how often.
ALTER TABLE users ADD COLUMN verification_asked_at INTEGER;

ALTER TABLE items ADD COLUMN delivered_at INTEGER CHECK (delivered_at IS NULL OR scheduled_delivery IS NOT NULL);
-- What was due before there was anybody to deliver it: a mail about it would only surprise.
UPDATE items SET delivered_at = scheduled_delivery WHERE scheduled_delivery <= CAST(strftime('%s', 'now') AS INTEGER) * 1000000;
-- Query: what is to be delivered.
CREATE INDEX items_to_deliver ON items (scheduled_delivery) WHERE scheduled_delivery IS NOT NULL AND delivered_at IS NULL;
