-- Rows whose vectors have no direction (zero or not finite) are left out; all others get length 1.
INSERT INTO $narrow ($columns)
SELECT $values
FROM $table
WHERE shard BETWEEN {first:UInt16} AND {last:UInt16} AND $indexable
SETTINGS async_insert = 0
