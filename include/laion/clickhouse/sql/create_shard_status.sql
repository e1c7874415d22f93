-- Two levels and no more: the pages ask this often, and most of a query's time is its planning.
CREATE OR REPLACE VIEW shard_status $on_cluster AS
WITH
    attempts AS
    (
        WITH stage = 'publish' AND state = 'done' AS is_publication
        SELECT
            `database`, `table`, shard, attempt,
            any(dataset) AS any_dataset,
            -- A planned shard without an attempt is older than any attempt of its.
            if(attempt = '', toDateTime64(0, 6, 'UTC'), min(at)) AS started_at,
            argMax(
                (stage, state, rows_expected, error_class, error, dag_id, run_id, try_number, log_url, at),
                (stage_number, at)
            ) AS event,
            maxIf(at, is_publication) AS publication_at,
            argMaxIf((attempt, rows_loaded, hash, run_id), at, is_publication) AS publication,
            maxIf(at, stage = 'plan') AS plan_at,
            argMaxIf(run_id, at, stage = 'plan') AS planner,
            -- A download under way writes its start again from time to time, with the bytes that are here.
            argMaxIf(bytes, at, stage = 'download') AS progress
        FROM shard_ledger
        GROUP BY `database`, `table`, shard, attempt
    )
SELECT
    `database`,
    `table`,
    shard,
    any(any_dataset) AS dataset,
    max(publication_at) > toDateTime64(0, 6, 'UTC') AS is_published,
    argMax(publication.1, publication_at) AS published_attempt,
    argMax(publication.2, publication_at) AS published_rows,
    argMax(publication.3, publication_at) AS published_hash,
    argMax(publication.4, publication_at) AS published_run_id,
    max(publication_at) AS published_at,
    argMax(attempt, started_at) AS last_attempt,
    max(started_at) AS last_started_at,
    argMax(event.1, started_at) AS last_stage,
    argMax(event.2, started_at) AS last_state,
    argMax(event.3, started_at) AS rows_expected,
    argMax(event.4, started_at) AS error_class,
    argMax(event.5, started_at) AS error,
    argMax(event.6, started_at) AS dag_id,
    argMax(event.7, started_at) AS run_id,
    argMax(event.8, started_at) AS try_number,
    argMax(event.9, started_at) AS log_url,
    argMax(event.10, started_at) AS last_at,
    max(plan_at) AS planned_at,
    argMax(planner, plan_at) AS planned_run_id,
    argMax(progress, started_at) AS bytes_here
FROM attempts
GROUP BY `database`, `table`, shard
COMMENT $digest
