SELECT shards
FROM ingest_runs
WHERE dag_id = {dag_id:String} AND run_id = {run_id:String} AND `database` = currentDatabase()
ORDER BY at
LIMIT 1
