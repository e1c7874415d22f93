-- Now, by the server's clock; later than every event of the table when that clock was set back, so
-- that what was written last counts as last.
SELECT greatest(now64(6, 'UTC'), max(at) + toIntervalMicrosecond(1)) AS next_at
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String}
