-- The shards of a table that had events since, as the board shows them: what shard_status says of
-- each, and the cursor to ask from next, which lies a little back because an event may become visible
-- after a later one. The view itself would take half as long again, nearly all of it for planning.
SELECT
    toUnixTimestamp64Micro(now64(6)) - {overlap_us:Int64} AS cursor,
    shard,
    max(publication_at) > toDateTime64(0, 6, 'UTC') AS is_published,
    argMax(publication_rows, publication_at) AS published_rows,
    toUnixTimestamp(max(publication_at)) AS published_at,
    argMax(event, started_at) AS last,
    last.1 AS last_stage,
    last.2 AS last_state,
    last.3 AS last_run_id,
    toUnixTimestamp(max(started_at)) AS last_started_at,
    max(plan_at) > last.4 AS is_planned_again,
    argMax(planner, plan_at) AS planned_run_id,
    argMax(progress, started_at) AS bytes_here
FROM
(
    WITH stage = 'publish' AND state = 'done' AS is_publication
    SELECT
        shard,
        attempt,
        if(attempt = '', toDateTime64(0, 6, 'UTC'), min(at)) AS started_at,
        argMax((stage, state, run_id, at), (stage_number, at)) AS event,
        maxIf(at, is_publication) AS publication_at,
        argMaxIf(rows_loaded, at, is_publication) AS publication_rows,
        maxIf(at, stage = 'plan') AS plan_at,
        argMaxIf(run_id, at, stage = 'plan') AS planner,
        argMaxIf(bytes, at, stage = 'download') AS progress
    FROM shard_ledger
    WHERE `database` = currentDatabase() AND `table` = {table:String} AND shard IN
        (
            SELECT shard
            FROM shard_ledger
            WHERE `database` = currentDatabase() AND `table` = {table:String}
                AND at > fromUnixTimestamp64Micro({since:Int64}, 'UTC')
        )
    GROUP BY shard, attempt
)
GROUP BY shard
ORDER BY shard
-- Asked every few seconds: nothing that the query log should tell of.
SETTINGS max_threads = 1, optimize_move_to_prewhere = 0, log_queries = 0
