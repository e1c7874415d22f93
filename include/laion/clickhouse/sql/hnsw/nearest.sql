SELECT $columns, $metric($vector, $target) AS distance
FROM $table
$where
ORDER BY distance
LIMIT $limit
