-- Which shards of a table had events since, and how fast shards came in lately. The cursor lies a
-- little back, because an event may become visible after a later one.
WITH
    now64(6) AS now,
    now - toIntervalSecond({window_s:UInt32}) AS began,
    at > began AS is_recent,
    stage = 'publish' AND state = 'done' AS is_publication
SELECT
    toUnixTimestamp64Micro(now) - {overlap_us:Int64} AS cursor,
    arraySort(groupUniqArrayIf(shard, at > fromUnixTimestamp64Micro({since:Int64}, 'UTC'))) AS changed,
    countIf(is_recent AND is_publication) AS shards,
    sumIf(rows_loaded, is_recent AND is_publication) AS `rows`,
    sumIf(bytes, is_recent AND stage = 'download' AND state = 'done') AS bytes_fetched,
    if(
        countIf(is_recent AND stage != 'plan') = 0, 0,
        dateDiff('millisecond', minIf(at, is_recent AND stage != 'plan'), any(now)) / 1000
    ) AS seconds,
    quantileIf(0.5)(bytes, stage = 'download' AND state = 'done' AND bytes > 0) AS usual_bytes
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String}
