SELECT v.name
FROM system.tables AS t
ARRAY JOIN dependencies_database AS view_database, dependencies_table AS view_name
INNER JOIN system.tables AS v ON v.`database` = view_database AND v.name = view_name
WHERE t.`database` = currentDatabase() AND t.name = {table:String}
    AND v.engine = 'MaterializedView'
ORDER BY v.name
