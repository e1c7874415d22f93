-- Whether a table's rows lie elsewhere, so that system.parts does not list them.
SELECT count()
FROM system.tables
WHERE `database` = currentDatabase() AND name = {table:String} AND engine NOT LIKE '%MergeTree'
