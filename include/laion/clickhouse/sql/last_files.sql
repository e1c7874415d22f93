-- What the last download of a shard fetched, by whichever run.
SELECT argMax(files, at) AS newest_files
FROM shard_ledger
WHERE `database` = currentDatabase() AND `table` = {table:String} AND shard = {shard:UInt16}
    AND files != ''
HAVING count() > 0
