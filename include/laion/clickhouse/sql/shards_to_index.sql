-- What the base table holds of every shard, and by which attempt.
SELECT p.shard AS shard, s.published_attempt AS attempt, p.held_rows AS held_rows
FROM
(
    $held
) AS p
LEFT JOIN
(
    SELECT shard, published_attempt
    FROM shard_status
    WHERE `database` = currentDatabase() AND `table` = {table:String}
) AS s ON p.shard = s.shard
ORDER BY shard
