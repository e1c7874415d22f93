SELECT
    bucket,
    argMax((state, made_by, shards, rows, left_out, index_bytes), at) AS last
FROM search_buckets
WHERE `database` = currentDatabase() AND `table` = {table:String} AND build_id = {build_id:String}
GROUP BY bucket
ORDER BY bucket
