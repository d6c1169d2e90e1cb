-- What the service checks first, so that no other program can store what the service could not read.
ALTER TABLE items
    ADD CONSTRAINT items_lengths CHECK (
        type ~ '^[a-z0-9_-]{1,32}$' AND char_length(title) BETWEEN 1 AND 200 AND char_length(content) <= 20000
        AND emotion_category ~ '^[a-z0-9_-]{1,32}$' AND cardinality(keywords) <= 32
        AND char_length(media_url) <= 2048 AND char_length(thumbnail_url) <= 2048);
-- Query: ?keyword= of one user. Without the user in the index a word that many use would read everybody's items.
CREATE EXTENSION IF NOT EXISTS btree_gin;
DROP INDEX items_by_keyword;
CREATE INDEX items_by_keyword ON items USING gin (user_id, keywords);
