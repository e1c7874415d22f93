-- Staging tables that no task can be using any more.
SELECT name
FROM system.tables
WHERE `database` = currentDatabase()
    AND match(name, concat('^', {table:String}, '_staging_[0-9]+_[0-9a-f]{8}$$'))
    AND metadata_modification_time <= now() - toIntervalSecond({older_s:UInt32})
ORDER BY name
