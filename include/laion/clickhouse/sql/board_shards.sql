-- The shards of a table as the board shows them: the ledger's two facts about each, and who planned
-- it last. $which limits it to some shards.
SELECT
    shard,
    is_published,
    published_rows,
    toUnixTimestamp(published_at),
    last_stage,
    last_state,
    run_id,
    toUnixTimestamp(last_started_at),
    planned_at > last_at AS is_planned_again,
    planned_run_id,
    bytes_here
FROM shard_status
WHERE `database` = currentDatabase() AND `table` = {table:String} $which
ORDER BY shard
SETTINGS max_threads = 1
