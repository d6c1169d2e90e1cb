CREATE TABLE items (
    -- UUID version 7: its order is the order of creation, so the key is also the cursor.
    id                 uuid PRIMARY KEY,
    user_id            uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- Counts the writes; it is the entity tag, and what a concurrent PATCH is checked against.
    version            bigint NOT NULL CHECK (version > 0),
    type               text NOT NULL,
    title              text NOT NULL,
    content            text NOT NULL,
    emotion_category   text,
    importance_score   integer CHECK (importance_score BETWEEN 0 AND 100),
    keywords           text[] NOT NULL,
    scheduled_delivery timestamptz,
    media_url          text,
    thumbnail_url      text,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL
);
-- Every list query is `WHERE user_id = … AND id < cursor [AND filter] ORDER BY id DESC LIMIT n`; each index ends in
-- id, so that the page is read off the index in order.
-- Query: the list without a filter.
CREATE INDEX items_of_user ON items (user_id, id);
-- Query: ?type=
CREATE INDEX items_by_type ON items (user_id, type, id);
-- Query: ?emotionCategory=
CREATE INDEX items_by_emotion ON items (user_id, emotion_category, id) WHERE emotion_category IS NOT NULL;
-- Query: ?importanceScore=
CREATE INDEX items_by_importance ON items (user_id, importance_score, id) WHERE importance_score IS NOT NULL;
-- Query: ?scheduled=true
CREATE INDEX items_scheduled ON items (user_id, id) WHERE scheduled_delivery IS NOT NULL;
-- Query: ?keyword=
CREATE INDEX items_by_keyword ON items USING gin (keywords);
