-- The codes of all rows that pass are compared; as many as LIMIT asks for, times a factor, are compared again by
-- their vectors. So a search for one row is as thorough as one for many.
SELECT $columns, cosineDistance($vector, $target) AS distance
FROM $narrow
$where
ORDER BY distance
LIMIT $limit
