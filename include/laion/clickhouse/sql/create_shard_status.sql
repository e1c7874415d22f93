CREATE OR REPLACE VIEW shard_status AS
WITH
    attempts AS
    (
        SELECT
            `database`, `table`, shard, attempt,
            any(dataset) AS any_dataset,
            -- A planned shard without an attempt is older than any attempt of its.
            if(attempt = '', toDateTime64(0, 6, 'UTC'), min(at)) AS started_at,
            argMax(
                (stage, state, rows_expected, error_class, error, dag_id, run_id, try_number, log_url, at),
                (stage_number, at)
            ) AS event,
            maxIf(at, stage = 'publish' AND state = 'done') AS publication_at,
            argMaxIf((attempt, rows_loaded, hash, run_id), at, stage = 'publish' AND state = 'done') AS publication,
            maxIf(at, stage = 'plan') AS plan_at,
            argMaxIf(run_id, at, stage = 'plan') AS planner,
            -- A download under way writes its start again from time to time, with the bytes that are here.
            argMaxIf(bytes, at, stage = 'download' AND state = 'started') AS progress
        FROM shard_ledger
        GROUP BY `database`, `table`, shard, attempt
    ),
    shards AS
    (
        SELECT
            `database`, `table`, shard,
            any(any_dataset) AS dataset,
            max(publication_at) AS published_at,
            argMax(publication, publication_at) AS published,
            argMax(attempt, started_at) AS last_attempt,
            max(started_at) AS last_started_at,
            argMax(event, started_at) AS last,
            max(plan_at) AS planned_at,
            argMax(planner, plan_at) AS planned_run_id,
            argMax(progress, started_at) AS bytes_here
        FROM attempts
        GROUP BY `database`, `table`, shard
    )
SELECT
    `database`,
    `table`,
    shard,
    dataset,
    published_at > toDateTime64(0, 6, 'UTC') AS is_published,
    published.1 AS published_attempt,
    published.2 AS published_rows,
    published.3 AS published_hash,
    published.4 AS published_run_id,
    published_at,
    last_attempt,
    last_started_at,
    last.1 AS last_stage,
    last.2 AS last_state,
    last.3 AS rows_expected,
    last.4 AS error_class,
    last.5 AS error,
    last.6 AS dag_id,
    last.7 AS run_id,
    last.8 AS try_number,
    last.9 AS log_url,
    last.10 AS last_at,
    planned_at,
    planned_run_id,
    bytes_here
FROM shards
