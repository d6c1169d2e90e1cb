CREATE TABLE items (
    -- UUID version 7: its order is the order of creation, so the key is also the cursor.
    id                 BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id            BLOB NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Counts the writes; it is the entity tag, and what a concurrent PATCH is checked against.
    version            INTEGER NOT NULL CHECK (version > 0),
    type               TEXT NOT NULL,
    title              TEXT NOT NULL,
    content            TEXT NOT NULL,
    emotion_category   TEXT,
    importance_score   INTEGER CHECK (importance_score BETWEEN 0 AND 100),
    keywords           TEXT NOT NULL CHECK (json_valid(keywords)),
    scheduled_delivery INTEGER,
    media_url          TEXT,
    thumbnail_url      TEXT,
    created_at         INTEGER NOT NULL,
    updated_at         INTEGER NOT NULL
) STRICT;
-- Every list query is `WHERE user_id = … AND id < cursor [AND filter] ORDER BY id DESC LIMIT n`; each index ends in
-- id, so that the page is read off the index in order.
-- Query: the list without a filter. It also serves ?keyword=, which looks into each item of the user: SQLite has no
-- index over the words of a list (Postgres has).
CREATE INDEX items_of_user ON items (user_id, id);
-- Query: ?type=
CREATE INDEX items_by_type ON items (user_id, type, id);
-- Query: ?emotionCategory=
CREATE INDEX items_by_emotion ON items (user_id, emotion_category, id) WHERE emotion_category IS NOT NULL;
-- Query: ?importanceScore=
CREATE INDEX items_by_importance ON items (user_id, importance_score, id) WHERE importance_score IS NOT NULL;
-- Query: ?scheduled=true
CREATE INDEX items_scheduled ON items (user_id, id) WHERE scheduled_delivery IS NOT NULL;
