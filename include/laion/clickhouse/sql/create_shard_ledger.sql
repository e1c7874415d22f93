CREATE TABLE IF NOT EXISTS shard_ledger $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String),
    shard UInt16,
    dataset LowCardinality(String),
    attempt String COMMENT 'eight hex digits; empty for a planned event',
    stage LowCardinality(String) COMMENT 'plan, download, convert, load, validate, publish',
    stage_number UInt8 COMMENT 'position of the stage in that list',
    state LowCardinality(String) COMMENT 'planned, started, done, failed',
    rows_expected UInt64,
    rows_loaded UInt64,
    bytes UInt64 COMMENT 'of files; a started download tells now and then how far it is',
    seconds Float64,
    hash UInt64 COMMENT 'order-independent hash of the rows, at publish',
    error_class LowCardinality(String),
    error String,
    files String COMMENT 'JSON by role, at the end of a download: url, size, etag, sha256',
    dag_id LowCardinality(String),
    run_id String,
    try_number UInt16,
    map_index Int32,
    log_url String,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, shard, at)
COMMENT 'What happened to every shard: append-only.'
