SELECT
    bucket,
    last.1 AS state,
    last.2 AS made_by,
    last.3 AS shards,
    last.4 AS rows,
    last.5 AS left_out,
    last.6 AS index_bytes
FROM
(
    SELECT bucket, argMax((state, made_by, shards, rows, left_out, index_bytes), at) AS last
    FROM search_buckets
    WHERE `database` = currentDatabase() AND `table` = {table:String} AND build_id = {build_id:String}
    GROUP BY bucket
)
ORDER BY bucket
