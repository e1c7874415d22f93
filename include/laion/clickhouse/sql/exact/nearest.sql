-- Of the base table as it is. The distance of a vector without a direction is not finite.
SELECT $columns, $metric($vector, $target) AS distance
FROM $table
WHERE isFinite(distance)$conditions
ORDER BY distance
LIMIT $limit
