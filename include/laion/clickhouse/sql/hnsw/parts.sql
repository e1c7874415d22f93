-- `unindexed` are parts without a graph, which a search would read whole; `rows` are those that a reader
-- gets.
SELECT
    count() AS parts,
    (SELECT count() FROM $table WHERE _partition_id = toString({bucket:UInt32})) AS rows,
    sum(secondary_indices_uncompressed_bytes) AS index_bytes,
    countIf(secondary_indices_uncompressed_bytes = 0) AS unindexed
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
    AND partition = toString({bucket:UInt32})
