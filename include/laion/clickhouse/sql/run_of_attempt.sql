SELECT DISTINCT dag_id, run_id
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String} AND attempt = {attempt:String}
