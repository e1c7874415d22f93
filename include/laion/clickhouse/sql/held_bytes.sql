-- Bytes of a table's partitions. A query of its own is planned quicker than a join.
SELECT `partition`, sum(bytes_on_disk) AS bytes
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
GROUP BY `partition`
SETTINGS log_queries = 0
