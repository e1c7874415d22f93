-- Which shards of a table had events since, and how fast shards came in lately. The cursor lies a
-- little back, because an event may become visible after a later one.
WITH
    toUnixTimestamp64Micro(now64(6)) AS now_us,
    at > fromUnixTimestamp64Micro(now_us - 1000000 * {window_s:Int64}, 'UTC') AS is_recent,
    stage = 'publish' AND state = 'done' AS is_publication,
    stage = 'download' AND state = 'done' AS is_download
SELECT
    now_us - {overlap_us:Int64} AS cursor,
    arraySort(groupUniqArrayIf(shard, at > fromUnixTimestamp64Micro({since:Int64}, 'UTC'))) AS changed,
    countIf(is_recent AND is_publication) AS shards,
    sumIf(rows_loaded, is_recent AND is_publication) AS `rows`,
    sumIf(bytes, is_recent AND is_download) AS bytes_fetched,
    -- Since the first event of the window; far more than the window where there was none.
    (now_us - toUnixTimestamp64Micro(minIf(at, is_recent AND stage != 'plan'))) / 1000000 AS seconds,
    quantileIf(0.5)(bytes, is_download AND bytes > 0) AS usual_bytes
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String}
SETTINGS max_threads = 1
