-- The shards of a table as the board shows them: the ledger's two facts about each, who planned it
-- last, and what its partition holds. $which limits it to some shards.
WITH
    plans AS
    (
        SELECT shard, max(at) AS planned_at, argMax(run_id, at) AS planned_by
        FROM shard_ledger
        WHERE `database` = currentDatabase() AND `table` = {table:String} AND stage = 'plan' $which
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
    p.planned_at > s.last_at AS is_planned_again,
    p.planned_by AS planned_by,
    -- Rows that lie elsewhere, as a Distributed table's do, cannot be counted here.
    (
        SELECT count() = 0
        FROM system.tables
        WHERE `database` = currentDatabase() AND name = {table:String} AND engine NOT LIKE '%MergeTree'
    ) AS counts_rows
FROM shard_status AS s
LEFT JOIN plans AS p ON p.shard = s.shard
LEFT JOIN held AS h ON h.shard = s.shard
WHERE s.`database` = currentDatabase() AND s.`table` = {table:String} $which
ORDER BY shard
