SELECT bucket, made_by, number, ids, distances
FROM recall_truth
WHERE `database` = currentDatabase() AND `table` = {table:String} AND root = {root:String}
    AND `column` = {column:String}
