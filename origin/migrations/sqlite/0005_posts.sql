CREATE TABLE posts (
    -- UUID version 7: its order is the order of creation, so the key is also the cursor.
    -- Query: the list of all posts.
    id         BLOB PRIMARY KEY CHECK (length(id) = 16),
    author_id  BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Counts the writes; it is the entity tag.
    version    INTEGER NOT NULL CHECK (version > 0),
    title      TEXT NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    content    TEXT NOT NULL CHECK (length(content) <= 20000),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
-- Query: ?author=
CREATE INDEX posts_of_author ON posts (author_id, id);

CREATE TABLE likes (
    post_id    BLOB NOT NULL REFERENCES posts ON DELETE CASCADE,
    user_id    BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    -- Once each.
    PRIMARY KEY (post_id, user_id)
) STRICT, WITHOUT ROWID;
-- Query: the end of an account.
CREATE INDEX likes_of_user ON likes (user_id);
-- Query: the top ten of a week, from the index alone.
CREATE INDEX likes_by_time ON likes (created_at, post_id);
