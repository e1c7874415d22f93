-- One shard. Rows whose vectors have no direction have no list, and are left out; all others get length 1.
INSERT INTO $narrow (list, $columns)
SELECT assigned.list, $values
FROM $table AS base
INNER JOIN
(
    SELECT id, list
    FROM $assigned
    WHERE shard = {shard:UInt16}
) AS assigned ON base.id = assigned.id
WHERE base.shard = {shard:UInt16}
SETTINGS async_insert = 0
