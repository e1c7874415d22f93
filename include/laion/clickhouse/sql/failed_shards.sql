SELECT shard
FROM shard_status
WHERE `database` = currentDatabase() AND `table` = {table:String} AND last_state = 'failed'
