-- Search tables built before builds told how far they are.
ALTER TABLE search_buckets $on_cluster
    ADD COLUMN IF NOT EXISTS progress Float32
        COMMENT 'the share of the index that is built, from 0 to 1' AFTER seconds
