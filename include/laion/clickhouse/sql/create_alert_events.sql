CREATE TABLE IF NOT EXISTS alert_events $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    shard Int32 COMMENT '-1: a task that is of no shard',
    dataset LowCardinality(String),
    dag_id LowCardinality(String),
    run_id String,
    task_id LowCardinality(String),
    map_index Int32,
    try_number UInt16,
    tries UInt16 COMMENT 'that the task had',
    round UInt16 COMMENT 'how often this task had failed for good before, and was cleared',
    state LowCardinality(String) COMMENT 'failed, recovered, late: a run',
    event_id String,
    cause String COMMENT 'what failures of one run have in common',
    error_class LowCardinality(String),
    error String,
    log_url String,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, run_id, at)
COMMENT 'Tasks that failed for good: append-only. Which of them sends the alert is read from here.'
