ALTER TABLE users
    ADD COLUMN email_verified_at timestamptz,
    ADD COLUMN updated_at timestamptz,
    ADD CONSTRAINT users_email_length CHECK (char_length(email) BETWEEN 3 AND 254),
    ADD CONSTRAINT users_known_roles
        CHECK (roles <@ ARRAY['user', 'moderator', 'admin'] AND cardinality(roles) BETWEEN 1 AND 3);
UPDATE users SET updated_at = created_at;
ALTER TABLE users ALTER COLUMN updated_at SET NOT NULL;
-- Query: the list of users with ?role=moderator or admin. Few have more than the role of everybody.
CREATE INDEX users_with_more_roles ON users (id) WHERE roles <> ARRAY['user'];

ALTER TABLE profiles
    ADD CONSTRAINT profiles_lengths
        CHECK (char_length(display_name) <= 100 AND char_length(bio) <= 2000 AND char_length(avatar_url) <= 2048);

-- Sessions from before have no seed and could not be taken back from Redis: people log in once more.
DELETE FROM sessions;
ALTER TABLE sessions
    -- What the token is made of, with the secret that this table does not have; it allows to end a session from elsewhere.
    ADD COLUMN seed bytea NOT NULL CHECK (length(seed) = 32),
    -- For its owner to recognise it in the list.
    ADD COLUMN user_agent text NOT NULL CHECK (char_length(user_agent) <= 200),
    ADD CONSTRAINT sessions_last CHECK (expires_at > created_at);
-- Query: a user's sessions, newest first, by page.
DROP INDEX sessions_of_user;
CREATE INDEX sessions_of_user ON sessions (user_id, created_at, token_hash);

CREATE TABLE idempotency_keys (
    user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key         text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request: the same key with another request is refused.
    fingerprint bytea NOT NULL CHECK (length(fingerprint) = 32),
    -- The id of what the request makes; no reference, because the key comes first and outlives it.
    resource    uuid NOT NULL,
    done        boolean NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, key)
);
-- Query: the sweep of old keys.
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
