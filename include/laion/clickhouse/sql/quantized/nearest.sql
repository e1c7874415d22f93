-- The codes of all rows that pass are compared; as many as the inner LIMIT asks for, times a factor, are compared
-- again by their vectors. So a search for one row is as thorough as one for many.
SELECT $columns, distance
FROM
(
    SELECT $inner, cosineDistance($vector, $target) AS distance
    FROM $narrow
    $where
    ORDER BY distance
    LIMIT $shortlist
)
ORDER BY distance, id
LIMIT {limit:UInt32}
