SELECT shard, any(attempt) AS attempt, any(held) AS held, count() = any(rows) AS is_whole
FROM $assigned
WHERE shard BETWEEN {first:UInt16} AND {last:UInt16}
GROUP BY shard
