CREATE TABLE notes (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Counts the writes; it is the entity tag.
    version      bigint NOT NULL CHECK (version > 0),
    title        text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 200),
    content      text NOT NULL CHECK (char_length(content) <= 20000),
    is_pinned    boolean NOT NULL,
    is_favourite boolean NOT NULL,
    is_archived  boolean NOT NULL,
    is_trashed   boolean NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    -- A note lies in one place: on the desk, in the archive, or in the bin.
    CHECK (NOT (is_archived AND is_trashed))
);
-- Every list query is `WHERE user_id = … AND place AND (updated_at, id) < cursor [AND filter] ORDER BY updated_at DESC, id DESC LIMIT n`.
-- Query: the list of any of the three places, from the index alone: it has every column that the list shows.
CREATE INDEX notes_of_user ON notes (user_id, is_trashed, is_archived, updated_at, id) INCLUDE (title, is_pinned);
-- Query: ?pinned=true
CREATE INDEX notes_pinned ON notes (user_id, updated_at, id) INCLUDE (title, is_pinned)
    WHERE is_pinned AND NOT is_archived AND NOT is_trashed;
-- Query: ?favourite=true
CREATE INDEX notes_favourite ON notes (user_id, updated_at, id) INCLUDE (title, is_pinned)
    WHERE is_favourite AND NOT is_archived AND NOT is_trashed;
