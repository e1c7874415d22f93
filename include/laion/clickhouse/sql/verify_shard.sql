SELECT
    count() AS rows,
    uniqExact(id) AS distinct_ids,
    min(id) AS first_id,
    max(id) AS last_id,
    countIf($odd) AS odd_vectors,
    -- A sum wraps and does not depend on the order of rows.
    sum($row_hash) AS hash
FROM $table
WHERE shard = {shard:UInt16}
