-- Rows whose vectors an index cannot hold (zero or not finite) are left out.
INSERT INTO $shadow
SELECT *
FROM $table
WHERE shard BETWEEN {first:UInt16} AND {last:UInt16} AND $indexable
SETTINGS
    materialize_skip_indexes_on_insert = 0,
    async_insert = 0
