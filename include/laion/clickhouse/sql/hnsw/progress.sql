SELECT
    sum(progress * total_size_marks) / greatest(sum(total_size_marks), 1) AS share,
    max(elapsed) AS seconds
FROM system.merges
WHERE `database` = currentDatabase() AND `table` = {table:String} AND is_mutation
    AND partition_id = toString({bucket:UInt32})
