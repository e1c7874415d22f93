-- Partitions of a search table that are not one part with its index: each further graph is searched as
-- well, and a part without one is read whole.
SELECT `partition`, count(), countIf(secondary_indices_uncompressed_bytes = 0)
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = {table:String} AND `rows` > 0
GROUP BY `partition`
HAVING count() > 1 OR countIf(secondary_indices_uncompressed_bytes = 0) > 0
ORDER BY `partition`
