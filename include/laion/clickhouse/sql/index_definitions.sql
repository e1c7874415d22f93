-- As the tables are made; another table's indexes may have the same names.
SELECT extractAll(create_table_query, 'INDEX \\S+ \\S+ TYPE [^()]+\\([^()]*\\)(?: GRANULARITY \\d+)?')
FROM system.tables
WHERE `database` = currentDatabase() AND name = {table:String}
