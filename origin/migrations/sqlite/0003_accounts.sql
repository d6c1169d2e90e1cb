ALTER TABLE users ADD COLUMN email_verified_at INTEGER;
-- SQLite adds no NOT NULL column without a default.
ALTER TABLE users ADD COLUMN updated_at INTEGER NOT NULL DEFAULT 0;
UPDATE users SET updated_at = created_at;
-- Query: the list of users with ?role=moderator or admin. Few have more than the role of everybody.
CREATE INDEX users_with_more_roles ON users (id) WHERE roles <> '["user"]';

-- Sessions from before have no seed and could not be taken back from Redis: people log in once more.
DROP TABLE sessions;
CREATE TABLE sessions (
    -- SHA-256 of the token: whoever reads this table cannot use what it holds.
    -- Query: a session by its token.
    token_hash BLOB PRIMARY KEY CHECK (length(token_hash) = 32),
    user_id    BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    -- What the token is made of, with the secret that this table does not have; it allows to end a session from elsewhere.
    seed       BLOB NOT NULL CHECK (length(seed) = 32),
    -- For its owner to recognise it in the list.
    user_agent TEXT NOT NULL CHECK (length(user_agent) <= 200),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL CHECK (expires_at > created_at)
) STRICT, WITHOUT ROWID;
-- Query: a user's sessions, newest first, by page.
CREATE INDEX sessions_of_user ON sessions (user_id, created_at, token_hash);
-- Query: the sweep of expired sessions.
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE idempotency_keys (
    user_id     BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    key         TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request: the same key with another request is refused.
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
    -- The id of what the request makes; no reference, because the key comes first and outlives it.
    resource    BLOB NOT NULL CHECK (length(resource) = 16),
    done        INTEGER NOT NULL CHECK (done IN (0, 1)),
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
-- Query: the sweep of old keys.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
