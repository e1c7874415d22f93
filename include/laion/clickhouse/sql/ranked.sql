SELECT $columns
FROM
(
    $nearest
)
ORDER BY distance, id
LIMIT $limit
