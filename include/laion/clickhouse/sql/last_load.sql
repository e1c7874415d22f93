-- The newest run that loaded, or was to load, shards into a table.
SELECT dag_id, run_id, dataset, source, params
FROM ingest_runs
WHERE `database` = currentDatabase() AND `table` = {table:String} AND shards != ''
ORDER BY at DESC
LIMIT 1
