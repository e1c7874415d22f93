SELECT shard
FROM shard_status
WHERE `database` = currentDatabase() AND `table` = {table:String} AND is_published
