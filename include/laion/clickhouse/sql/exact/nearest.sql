-- Of the base table as it is.
SELECT $columns, $metric($vector, $target) AS distance
FROM $table
WHERE isFinite(distance)$conditions
ORDER BY distance
LIMIT $limit
