SELECT
    attempt, stage, state, rows_expected, rows_loaded, bytes, seconds, hash, error_class, error,
    dag_id, run_id, try_number, map_index, log_url, toUnixTimestamp64Milli(at) AS at_ms
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String} AND shard = {shard:UInt16}
ORDER BY at DESC
LIMIT {limit:UInt32}
