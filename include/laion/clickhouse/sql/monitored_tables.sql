SELECT `table`, argMax(dataset, at) AS newest_dataset
FROM ingest_runs
WHERE `database` = currentDatabase() AND shards != ''
GROUP BY `table`
ORDER BY `table`
