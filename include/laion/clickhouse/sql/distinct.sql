SELECT $columns
FROM
(
    SELECT $columns,
        -- Copies are equally near, so that they lie together. Nothing of this is computed where none are left out.
        if($distinct, arrayExists(nearer -> cosineDistance(nearer, $vector) < $closest, groupArray($vector) OVER (ORDER BY distance, id ROWS BETWEEN 100 PRECEDING AND 1 PRECEDING)), false) AS is_copy
    FROM
    (
        $ranked
    )
)
WHERE NOT is_copy
