-- Which shards of a table had events since. The cursor to ask from next lies a little back, because
-- an event may become visible after a later one.
SELECT
    toUnixTimestamp64Micro(now64(6)) - {overlap_us:Int64} AS cursor,
    arraySort(groupUniqArray(shard)) AS changed
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String}
    AND at > fromUnixTimestamp64Micro({since:Int64}, 'UTC')
SETTINGS max_threads = 1
