CREATE TABLE IF NOT EXISTS ingest_runs $on_cluster
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
ENGINE = $engine
ORDER BY (dag_id, run_id, at)
COMMENT 'One row per planned run of laion_ingest.'
