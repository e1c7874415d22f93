CREATE TABLE IF NOT EXISTS monitor_findings $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    run_id String COMMENT 'of laion_monitor',
    `check` LowCardinality(String),
    state LowCardinality(String) COMMENT 'ok, found, skipped, failed: the check itself',
    summary String,
    remedy String,
    seconds Float64,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, at)
COMMENT 'What laion_monitor has checked, and what it found: append-only.'
