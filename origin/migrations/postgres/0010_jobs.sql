-- Work that a request leaves for later. A row is written in the transaction of what it follows from, and removed when it is done.
CREATE TABLE jobs (
    id         uuid PRIMARY KEY,
    -- No list of kinds here: a worker puts off what a newer version has queued.
    kind       text NOT NULL CHECK (kind ~ '^[a-z_]{1,32}$'),
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Of a delivery; no reference: a job whose item is gone finds nothing to do.
    item_id    uuid,
    -- The request that it follows from (W3C Trace Context).
    trace_id   text CHECK (trace_id ~ '^[0-9a-f]{32}$'),
    created_at timestamptz NOT NULL,
    -- Whoever takes the job moves this on: until then it is theirs.
    due_at     timestamptz NOT NULL,
    -- Counts the beginnings; who ends a job must have begun this one.
    tries      integer NOT NULL CHECK (tries >= 0),
    last_error text CHECK (char_length(last_error) <= 500),
    -- Given up: for an operator to look at.
    dead_at    timestamptz
);
-- Query: what is due, oldest first; and how much waits.
CREATE INDEX jobs_due ON jobs (due_at) WHERE dead_at IS NULL;
-- Query: what was given up, and its sweep.
CREATE INDEX jobs_dead ON jobs (dead_at, id) WHERE dead_at IS NOT NULL;
-- Query: the end of an account.
CREATE INDEX jobs_of_user ON jobs (user_id);

ALTER TABLE users
    -- When the last mail with a proof was asked for; it bounds how often.
    ADD COLUMN verification_asked_at timestamptz;

ALTER TABLE items
    ADD COLUMN delivered_at timestamptz,
    ADD CONSTRAINT items_delivered CHECK (delivered_at IS NULL OR scheduled_delivery IS NOT NULL);
-- What was due before there was anybody to deliver it: a mail about it would only surprise.
UPDATE items SET delivered_at = scheduled_delivery WHERE scheduled_delivery <= now();
-- Query: what is to be delivered.
CREATE INDEX items_to_deliver ON items (scheduled_delivery) WHERE scheduled_delivery IS NOT NULL AND delivered_at IS NULL;
