-- The shards of a table as the board shows them: the ledger's two facts about each, who planned it
-- last, and what its partition holds. $which limits it to some shards.
-- One subquery that returns a map is planned quicker than a join, and planning is most of the time.
WITH
    toUInt16OrZero(`partition`) AS of_shard,
    (
        SELECT (sumMap(map(of_shard, `rows`)), sumMap(map(of_shard, bytes_on_disk)))
        FROM system.parts
        WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
    ) AS held
SELECT
    shard,
    is_published,
    published_rows,
    held.1[shard] AS rows_held,
    held.2[shard] AS bytes_held,
    last_stage,
    last_state,
    run_id,
    planned_at > last_at AS is_planned_again,
    planned_run_id,
    notEmpty(held.1) AS has_parts,
    bytes_here
FROM shard_status
WHERE `database` = currentDatabase() AND `table` = {table:String} $which
ORDER BY shard
SETTINGS max_threads = 1
