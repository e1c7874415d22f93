-- The indexes and projections of a table, vector indexes with all of their options: another table's may
-- have the same names.
SELECT extractAll(
    create_table_query,
    '(?:INDEX|PROJECTION) \\S+(?: \\S+ TYPE vector_similarity\\([^()]*\\)(?: GRANULARITY \\d+)?)?'
)
FROM system.tables
WHERE `database` = currentDatabase() AND name = {table:String}
