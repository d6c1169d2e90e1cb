CREATE TABLE posts (
    -- UUID version 7: its order is the order of creation, so the key is also the cursor.
    -- Query: the list of all posts.
    id         uuid PRIMARY KEY,
    author_id  uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Counts the writes; it is the entity tag.
    version    bigint NOT NULL CHECK (version > 0),
    title      text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 200),
    content    text NOT NULL CHECK (char_length(content) <= 20000),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
-- Query: ?author=
CREATE INDEX posts_of_author ON posts (author_id, id);

CREATE TABLE likes (
    post_id    uuid NOT NULL REFERENCES posts ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    -- Once each.
    PRIMARY KEY (post_id, user_id)
);
-- Query: the end of an account.
CREATE INDEX likes_of_user ON likes (user_id);
-- Query: the top ten of a week, from the index alone.
CREATE INDEX likes_by_time ON likes (created_at) INCLUDE (post_id);
