-- What the base table holds of every shard, and by which attempt.
SELECT p.shard AS shard, s.published_attempt AS attempt, p.rows AS rows
FROM
(
    SELECT toUInt16(partition) AS shard, sum(rows) AS rows
    FROM system.parts
    WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
    GROUP BY shard
) AS p
LEFT JOIN
(
    SELECT shard, published_attempt
    FROM shard_status
    WHERE `database` = currentDatabase() AND `table` = {table:String}
) AS s ON p.shard = s.shard
ORDER BY shard
