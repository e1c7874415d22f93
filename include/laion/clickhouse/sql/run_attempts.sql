SELECT DISTINCT shard, attempt
FROM shard_ledger
WHERE dag_id = {dag_id:String} AND run_id = {run_id:String} AND `database` = currentDatabase()
    AND `table` = {table:String} AND attempt != ''
