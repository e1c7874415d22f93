-- Measurements of releases that knew one kind of search table have its two settings in columns alone.
ALTER TABLE recall_history $on_cluster
    ADD COLUMN IF NOT EXISTS profile String
        COMMENT 'JSON: how thoroughly was searched, by the kind of search table' AFTER recall_sample,
    ADD COLUMN IF NOT EXISTS own_profile String
        COMMENT 'JSON: the cheapest by which this kind of query alone reaches the target' AFTER profile,
    ADD COLUMN IF NOT EXISTS recall_at_10_low Float32
        COMMENT 'its lower 95 % bound' AFTER recall_at_10,
    ADD COLUMN IF NOT EXISTS read_bytes UInt64
        COMMENT 'of a search, on average' AFTER recall_at_10_low
