-- The tables that have a search table, the one loaded last first.
SELECT `table`, argMax(dataset, at) AS dataset
FROM ingest_runs
WHERE `database` = currentDatabase()
    AND concat(`table`, '_search') IN (SELECT name FROM system.tables WHERE `database` = currentDatabase())
GROUP BY `table`
ORDER BY max(at) DESC
