SELECT toUInt16OrZero(partition) AS shard, sum(rows)
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
GROUP BY shard
