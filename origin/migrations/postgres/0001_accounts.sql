CREATE TABLE users (
    id            uuid PRIMARY KEY,
    -- Lower case, so that the unique index is the one place that decides whether an address is taken.
    -- Query: a user by e-mail (login).
    email         text NOT NULL UNIQUE CHECK (email = lower(email)),
    password_hash text NOT NULL,
    roles         text[] NOT NULL,
    created_at    timestamptz NOT NULL
);

-- Apart from users: profiles change often and are read alone, credentials rarely.
CREATE TABLE profiles (
    user_id      uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    display_name text NOT NULL,
    bio          text NOT NULL,
    avatar_url   text,
    updated_at   timestamptz NOT NULL
);

CREATE TABLE sessions (
    -- SHA-256 of the token: whoever reads this table cannot use what it holds.
    -- Query: a session by its token.
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
-- Query: a user's sessions.
CREATE INDEX sessions_of_user ON sessions (user_id);
-- Query: the sweep of expired sessions.
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
