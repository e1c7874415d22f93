CREATE TABLE IF NOT EXISTS search_builds $on_cluster
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
ENGINE = $engine
ORDER BY (`database`, `table`, at)
COMMENT 'Builds of search tables: append-only. Who builds now is read from here.'
