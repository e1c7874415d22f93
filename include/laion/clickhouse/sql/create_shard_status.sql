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
