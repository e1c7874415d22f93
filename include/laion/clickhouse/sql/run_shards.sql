-- Every shard planned by a run: is it published, and if not, how did it end? A publication counts
-- when it is newer than the plan, be it by this run or by another that overtook it.
WITH
    planned AS
    (
        SELECT `database`, `table`, shard, min(at) AS planned_at
        FROM shard_ledger
        WHERE dag_id = {dag_id:String} AND run_id = {run_id:String}
            AND `database` = currentDatabase() AND stage = 'plan'
        GROUP BY `database`, `table`, shard
    ),
    own AS
    (
        SELECT
            shard,
            max(rows_expected) AS expected,
            dateDiff('millisecond', minIf(at, attempt != ''), max(at)) / 1000 AS seconds,
            argMax((stage, state, error_class, error, log_url), at) AS last
        FROM shard_ledger
        WHERE dag_id = {dag_id:String} AND run_id = {run_id:String}
            AND `database` = currentDatabase()
        GROUP BY shard
    ),
    published AS
    (
        SELECT l.shard AS shard, argMax((l.rows_loaded, l.run_id), l.at) AS newest
        FROM shard_ledger AS l
        INNER JOIN planned AS p
            ON l.`database` = p.`database` AND l.`table` = p.`table` AND l.shard = p.shard
        WHERE l.stage = 'publish' AND l.state = 'done' AND l.at > p.planned_at
        GROUP BY l.shard
    )
SELECT
    own.shard AS shard,
    toBool(published.newest.2 != '') AS is_published,
    toBool(published.newest.2 = {run_id:String}) AS is_published_by_run,
    own.last.1 AS stage,
    own.last.2 AS stage_state,
    own.expected AS rows_expected,
    published.newest.1 AS rows_loaded,
    if(own.last.1 = 'plan', 0, round(own.seconds, 1)) AS seconds,
    if(published.newest.2 = '', own.last.3, '') AS error_class,
    if(published.newest.2 = '', own.last.4, '') AS error,
    if(published.newest.2 = '', own.last.5, '') AS log_url
FROM own
LEFT JOIN published ON own.shard = published.shard
ORDER BY shard
