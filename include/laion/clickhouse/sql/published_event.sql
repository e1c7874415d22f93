SELECT rows_loaded, hash
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String} AND shard = {shard:UInt16}
    AND attempt = {attempt:String} AND stage = 'publish' AND state = 'done'
ORDER BY at DESC
LIMIT 1
