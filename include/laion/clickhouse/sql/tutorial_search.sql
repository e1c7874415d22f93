-- The query of ClickHouse's LAION tutorial: exact, reads every row. It asks
-- for similarity >= 0.2; put this way, rows whose similarity is unknown (NaN) count as well.
SELECT
    id, $shown,
    L2Distance(image_embedding, {target:Array(Float32)}) AS distance
FROM $table
WHERE NOT similarity < 0.2
ORDER BY distance
LIMIT {limit:UInt32}
