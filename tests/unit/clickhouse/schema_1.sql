-- The tables as the first two structures of this package made them, one statement after the other.
CREATE TABLE IF NOT EXISTS shard_ledger
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
    bytes UInt64,
    seconds Float64,
    hash UInt64 COMMENT 'order-independent hash of the rows, at publish',
    error_class LowCardinality(String),
    error String,
    dag_id LowCardinality(String),
    run_id String,
    try_number UInt16,
    map_index Int32,
    log_url String,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (`database`, `table`, shard, at)
COMMENT 'What happened to every shard: append-only.'
;
CREATE TABLE IF NOT EXISTS ingest_runs
(
    dag_id LowCardinality(String),
    run_id String,
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String),
    dataset LowCardinality(String),
    source String COMMENT 'without credentials',
    shards String COMMENT 'what the words all, missing and failed stood for when planned',
    params String COMMENT 'JSON',
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (dag_id, run_id, at)
COMMENT 'One row per planned run of laion_ingest.'
;
CREATE OR REPLACE VIEW shard_status AS
WITH
    attempts AS
    (
        SELECT
            `database`, `table`, shard, attempt,
            any(dataset) AS dataset,
            -- A planned shard without an attempt is older than any attempt of its.
            if(attempt = '', toDateTime64(0, 6, 'UTC'), min(at)) AS started_at,
            argMax(
                (stage, state, rows_expected, error_class, error, dag_id, run_id, try_number, log_url, at),
                (stage_number, at)
            ) AS last
        FROM shard_ledger
        GROUP BY `database`, `table`, shard, attempt
    ),
    last_attempts AS
    (
        SELECT
            `database`, `table`, shard,
            any(dataset) AS dataset,
            argMax(attempt, started_at) AS last_attempt,
            max(started_at) AS last_started_at,
            argMax(last, started_at) AS last
        FROM attempts
        GROUP BY `database`, `table`, shard
    ),
    publications AS
    (
        SELECT
            `database`, `table`, shard,
            argMax((attempt, rows_loaded, hash, run_id), at) AS published,
            max(at) AS published_at
        FROM shard_ledger
        WHERE stage = 'publish' AND state = 'done'
        GROUP BY `database`, `table`, shard
    )
SELECT
    l.`database` AS `database`,
    l.`table` AS `table`,
    l.shard AS shard,
    l.dataset AS dataset,
    p.published_at > toDateTime64(0, 6, 'UTC') AS is_published,
    p.published.1 AS published_attempt,
    p.published.2 AS published_rows,
    p.published.3 AS published_hash,
    p.published.4 AS published_run_id,
    p.published_at AS published_at,
    l.last_attempt AS last_attempt,
    l.last_started_at AS last_started_at,
    l.last.1 AS last_stage,
    l.last.2 AS last_state,
    l.last.3 AS rows_expected,
    l.last.4 AS error_class,
    l.last.5 AS error,
    l.last.6 AS dag_id,
    l.last.7 AS run_id,
    l.last.8 AS try_number,
    l.last.9 AS log_url,
    l.last.10 AS last_at
FROM last_attempts AS l
LEFT JOIN publications AS p
    ON l.`database` = p.`database` AND l.`table` = p.`table` AND l.shard = p.shard
;
CREATE TABLE IF NOT EXISTS search_builds
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    build_id String COMMENT 'eight hex digits',
    state LowCardinality(String) COMMENT 'claimed, withdrawn, planned, alive, accepted, rejected, failed, published',
    dag_id LowCardinality(String),
    run_id String,
    plan String COMMENT 'JSON, with state planned',
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (`database`, `table`, at)
COMMENT 'Builds of search tables: append-only. Who builds now is read from here.'
;
CREATE TABLE IF NOT EXISTS search_buckets
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
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (`database`, `table`, build_id, bucket, at)
COMMENT 'How the buckets of search tables were built: append-only.'
;
CREATE TABLE IF NOT EXISTS recall_queries
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    root String COMMENT 'the full build they were sampled for',
    `column` LowCardinality(String) COMMENT 'the vector column they search',
    number UInt32 COMMENT 'from 1, in each column',
    kind LowCardinality(String) COMMENT 'cross: a vector of the other column; near: between two rows',
    vector Array(Float32),
    excluded Array(Int64) COMMENT 'rows that the query was made from',
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (`database`, `table`, root, `column`, number)
COMMENT 'Standing queries by which the recall of search tables is measured.'
;
CREATE TABLE IF NOT EXISTS recall_truth
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    root String,
    `column` LowCardinality(String),
    bucket UInt32,
    made_by String COMMENT 'the build that built the bucket',
    number UInt32,
    ids Array(Int64) COMMENT 'nearest first',
    distances Array(Float32),
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (`database`, `table`, root, `column`, bucket, made_by, number)
COMMENT 'The exact nearest rows of each standing query in each bucket.'
;
CREATE TABLE IF NOT EXISTS recall_history
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    build_id String,
    `column` LowCardinality(String) COMMENT 'the vector column searched',
    kind LowCardinality(String) COMMENT 'cross, near: which standing queries',
    queries UInt32,
    `rows` UInt64 COMMENT 'rows of the search table',
    recall_sample Float32 COMMENT 'share of these rows that was searched',
    ef UInt32 COMMENT 'hnsw_candidate_list_size_for_search',
    multiplier UInt32 COMMENT 'candidates rescored per result; 0: none',
    recall_at_10 Float32,
    recall_at_100 Float32,
    target Float32 COMMENT 'of recall_at_10',
    is_accepted Bool,
    ann_p50_ms Float32,
    ann_p95_ms Float32,
    ann_p99_ms Float32,
    exact_p50_ms Float32,
    exact_p95_ms Float32,
    exact_p99_ms Float32,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (`database`, `table`, at)
COMMENT 'What searches of each build found, measured before it was put in place.'
;
CREATE TABLE IF NOT EXISTS search_profiles
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    build_id String,
    `column` LowCardinality(String) COMMENT 'the vector column searched',
    metric LowCardinality(String),
    ef UInt32 COMMENT 'hnsw_candidate_list_size_for_search',
    multiplier UInt32 COMMENT 'candidates rescored per result; 0: none',
    recall_at_10 Float32,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = MergeTree
ORDER BY (`database`, `table`, build_id, `column`, at)
COMMENT 'The cheapest search settings that reached the recall target, for each build.'
;
