-- Rows and bytes of a table's partitions. A query of its own is planned quicker than a join.
-- $which limits it to some partitions.
SELECT `partition`, sum(`rows`), sum(bytes_on_disk)
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = {table:String} $which
GROUP BY `partition`
SETTINGS log_queries = 0
