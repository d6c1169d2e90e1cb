CREATE TABLE notes (
    id           BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id      BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Counts the writes; it is the entity tag.
    version      INTEGER NOT NULL CHECK (version > 0),
    title        TEXT NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    content      TEXT NOT NULL CHECK (length(content) <= 20000),
    is_pinned    INTEGER NOT NULL CHECK (is_pinned IN (0, 1)),
    is_favourite INTEGER NOT NULL CHECK (is_favourite IN (0, 1)),
    is_archived  INTEGER NOT NULL CHECK (is_archived IN (0, 1)),
    is_trashed   INTEGER NOT NULL CHECK (is_trashed IN (0, 1)),
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    -- A note lies in one place: on the desk, in the archive, or in the bin.
    CHECK (NOT (is_archived AND is_trashed))
) STRICT;
-- Every list query is `WHERE user_id = … AND place AND (updated_at, id) < cursor [AND filter] ORDER BY updated_at DESC, id DESC LIMIT n`.
-- Query: the list of any of the three places.
CREATE INDEX notes_of_user ON notes (user_id, is_trashed, is_archived, updated_at, id);
-- Query: ?pinned=true
CREATE INDEX notes_pinned ON notes (user_id, updated_at, id) WHERE is_pinned = 1 AND is_archived = 0 AND is_trashed = 0;
-- Query: ?favourite=true
CREATE INDEX notes_favourite ON notes (user_id, updated_at, id) WHERE is_favourite = 1 AND is_archived = 0 AND is_trashed = 0;
