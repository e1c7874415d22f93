-- Staging tables that no task can be using any more: neither they nor, in the ledger, their attempts
-- have seen anything for long. Not every database engine tells when a table was made.
SELECT t.name AS name
FROM
(
    SELECT name, metadata_modification_time AS changed_at, right(name, 8) AS attempt
    FROM system.tables
    WHERE `database` = currentDatabase()
        AND match(name, concat('^', {table:String}, '_staging_[0-9]+_[0-9a-f]{8}$$'))
) AS t
LEFT JOIN
(
    SELECT attempt, max(at) AS last_at
    FROM shard_ledger
    WHERE `database` = currentDatabase() AND `table` = {table:String}
    GROUP BY attempt
) AS l ON t.attempt = l.attempt
WHERE greatest(t.changed_at, toDateTime(l.last_at)) <= now() - toIntervalSecond({older_s:UInt32})
ORDER BY name
