-- The tables that were ever planned, the one used last first.
SELECT `table`, argMax(dataset, at) AS dataset
FROM ingest_runs
WHERE `database` = currentDatabase()
GROUP BY `table`
ORDER BY max(at) DESC
