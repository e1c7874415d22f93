-- Shards of whose failure was told, and that have been published since.
SELECT f.shard AS shard
FROM
(
    SELECT shard, maxIf(at, state = 'failed') AS failed_at, maxIf(at, state = 'recovered') AS told_at
    FROM alert_events
    WHERE `database` = currentDatabase() AND `table` = {table:String} AND shard >= 0
    GROUP BY shard
) AS f
INNER JOIN
(
    SELECT shard, published_at
    FROM shard_status
    WHERE `database` = currentDatabase() AND `table` = {table:String}
) AS s ON f.shard = s.shard
WHERE f.failed_at > f.told_at AND s.published_at > f.failed_at
ORDER BY shard
