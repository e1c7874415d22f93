SELECT number, kind, vector, excluded
FROM recall_queries
WHERE `database` = currentDatabase() AND `table` = {table:String} AND root = {root:String}
    AND `column` = {column:String}
ORDER BY number
LIMIT 1 BY number
