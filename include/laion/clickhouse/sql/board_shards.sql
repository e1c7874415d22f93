-- The shards of a table as the board shows them: the ledger's two facts about each, who planned it
-- last, and what its partition holds. $which limits it to some shards.
WITH
    -- A download under way writes its start again from time to time, with the bytes that are here.
    events AS
    (
        SELECT
            shard,
            maxIf(at, stage = 'plan') AS planned_at,
            argMaxIf(run_id, at, stage = 'plan') AS planned_by,
            argMaxIf(bytes, at, stage = 'download' AND state = 'started') AS bytes_here
        FROM shard_ledger
        WHERE `database` = currentDatabase() AND `table` = {table:String} $which
        GROUP BY shard
    ),
    held AS
    (
        SELECT toUInt16OrZero(`partition`) AS shard, sum(`rows`) AS rows_held, sum(bytes_on_disk) AS bytes_held
        FROM system.parts
        WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
        GROUP BY shard
    )
SELECT
    s.shard AS shard,
    s.is_published AS is_published,
    s.published_rows AS published_rows,
    h.rows_held AS rows_held,
    h.bytes_held AS bytes_held,
    s.last_stage AS last_stage,
    s.last_state AS last_state,
    s.run_id AS run_id,
    e.planned_at > s.last_at AS is_planned_again,
    e.planned_by AS planned_by,
    -- Rows that lie elsewhere, as a Distributed table's do, cannot be counted here.
    (
        SELECT count() = 0
        FROM system.tables
        WHERE `database` = currentDatabase() AND name = {table:String} AND engine NOT LIKE '%MergeTree'
    ) AS counts_rows,
    e.bytes_here AS bytes_here
FROM shard_status AS s
LEFT JOIN events AS e ON e.shard = s.shard
LEFT JOIN held AS h ON h.shard = s.shard
WHERE s.`database` = currentDatabase() AND s.`table` = {table:String} $which
ORDER BY shard
