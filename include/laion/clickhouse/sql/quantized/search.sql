-- The nearest ids are found once, as a constant; only their granules of the base table are read.
WITH
    (
        SELECT (groupArray(id), groupArray(distance), groupUniqArray(shard))
        FROM
        (
            $nearest
        )
    ) AS found
SELECT $columns, found.2[indexOf(found.1, id)] AS distance
FROM $table
WHERE has(found.3, shard) AND has(found.1, id)
ORDER BY distance, id
