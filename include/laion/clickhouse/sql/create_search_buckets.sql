CREATE TABLE IF NOT EXISTS search_buckets $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    build_id String,
    bucket UInt32 COMMENT 'partition of the search table',
    state LowCardinality(String) COMMENT 'filling, filled, built, attached',
    made_by String COMMENT 'the build that built it, this one or, if attached, an earlier one',
    shards Array(Tuple(UInt16, String, UInt64)) COMMENT 'shard, attempt, rows it was filled from',
    rows UInt64,
    left_out UInt64 COMMENT 'rows whose vectors no index can hold',
    index_bytes UInt64,
    seconds Float64,
    progress Float32 COMMENT 'the share of the index that is built, from 0 to 1',
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, build_id, bucket, at)
COMMENT 'How the buckets of search tables were built: append-only.'
