-- `unindexed` are parts without a graph, which a search would read whole.
SELECT
    count() AS parts,
    sum(rows) AS rows,
    sum(secondary_indices_uncompressed_bytes) AS index_bytes,
    countIf(secondary_indices_uncompressed_bytes = 0) AS unindexed
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
    AND partition = toString({bucket:UInt32})
