-- The nearest ids are found once, as a constant; then only their granules are read.
WITH
    (
        SELECT (groupArray(id), groupArray(distance), groupUniqArray(shard))
        FROM
        (
            $found
        )
        SETTINGS $settings
    ) AS laion_found
SELECT $columns
FROM $table
WHERE has(laion_found.3, shard) AND has(laion_found.1, id)
ORDER BY distance, id
$once
LIMIT $limit
