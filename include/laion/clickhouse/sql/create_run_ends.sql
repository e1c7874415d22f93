CREATE TABLE IF NOT EXISTS run_ends $on_cluster
(
    dag_id LowCardinality(String),
    run_id String,
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String),
    planned UInt32 COMMENT 'shards',
    missing UInt32 COMMENT 'planned shards that were not published then',
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (dag_id, run_id, at)
COMMENT 'When the gate of a run looked at its shards; a run whose tasks are cleared ends again.'
