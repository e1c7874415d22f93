-- What the ledger says of every shard of a table, beside what the table holds of it.
WITH
    held AS
    (
        $held
    ),
    ends AS
    (
        SELECT dag_id, run_id, max(at) AS ended_at
        FROM run_ends
        WHERE `database` = currentDatabase()
        GROUP BY dag_id, run_id
    ),
    runs AS
    (
        SELECT l.dag_id AS dag_id, l.run_id AS run_id, max(l.at) AS last_at, any(e.ended_at) AS ended_at
        FROM shard_ledger AS l
        LEFT JOIN ends AS e ON l.dag_id = e.dag_id AND l.run_id = e.run_id
        WHERE l.`database` = currentDatabase() AND l.`table` = {table:String}
        GROUP BY l.dag_id, l.run_id
    ),
    known AS
    (
        SELECT
            s.`table` AS `table`,
            s.shard AS shard,
            s.is_published AS is_published,
            s.published_attempt AS published_attempt,
            s.published_rows AS published_rows,
            s.published_run_id AS published_run_id,
            s.published_hash AS published_hash,
            s.last_stage AS last_stage,
            s.last_state AS last_state,
            s.error_class AS error_class,
            s.error AS error,
            s.run_id AS run_id,
            s.last_at AS last_at,
            s.planned_run_id AS planned_run_id,
            -- A run that was cleared after its end goes on.
            r.ended_at >= r.last_at AS has_run_ended,
            dateDiff('second', r.last_at, now64(6)) AS run_quiet_s,
            -- A shard that a later run has planned, and not begun yet, is that run's.
            s.planned_at > s.last_at AND NOT p.ended_at >= p.last_at AS is_awaited,
            dateDiff('second', p.last_at, now64(6)) AS awaited_quiet_s
        FROM shard_status AS s
        LEFT JOIN runs AS r ON s.dag_id = r.dag_id AND s.run_id = r.run_id
        LEFT ANY JOIN runs AS p ON s.planned_run_id = p.run_id
        WHERE s.`database` = currentDatabase() AND s.`table` = {table:String}
    )
SELECT
    if(k.`table` = '', h.shard, k.shard) AS shard,
    k.`table` != '' AS is_known,
    toBool(k.is_published) AS is_published,
    k.published_attempt AS attempt,
    k.published_rows AS published_rows,
    k.published_run_id AS published_run_id,
    k.published_hash AS published_hash,
    h.held_rows AS held_rows,
    k.last_stage AS last_stage,
    k.last_state AS last_state,
    k.error_class AS error_class,
    k.error AS error,
    k.run_id AS run_id,
    dateDiff('second', k.last_at, now64(6)) AS quiet_s,
    toBool(k.has_run_ended) AS has_run_ended,
    k.run_quiet_s AS run_quiet_s,
    if(k.is_awaited, k.planned_run_id, '') AS awaited_by,
    k.awaited_quiet_s AS awaited_quiet_s
FROM known AS k
FULL JOIN held AS h ON k.shard = h.shard
ORDER BY shard
