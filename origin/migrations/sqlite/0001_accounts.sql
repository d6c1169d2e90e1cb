-- The same tables as Postgres's, in SQLite's types: uuid is a BLOB of 16 bytes, an instant is microseconds since 1970,
-- a list of words is a JSON array.
CREATE TABLE users (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    -- Lower case, so that the unique index is the one place that decides whether an address is taken.
    -- Query: a user by e-mail (login).
    email         TEXT NOT NULL UNIQUE CHECK (email = lower(email)),
    password_hash TEXT NOT NULL,
    roles         TEXT NOT NULL CHECK (json_valid(roles)),
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Apart from users: profiles change often and are read alone, credentials rarely.
CREATE TABLE profiles (
    user_id      BLOB PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    display_name TEXT NOT NULL,
    bio          TEXT NOT NULL,
    avatar_url   TEXT,
    updated_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    -- SHA-256 of the token: whoever reads this table cannot use what it holds.
    -- Query: a session by its token.
    token_hash BLOB PRIMARY KEY CHECK (length(token_hash) = 32),
    user_id    BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Query: a user's sessions.
CREATE INDEX sessions_of_user ON sessions (user_id);
-- Query: the sweep of expired sessions.
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
