WITH attempts AS
(
    SELECT
        attempt,
        min(at) AS started_at,
        countIf(stage = 'publish' AND state = 'done') > 0 AS is_published,
        any(run_id) AS run_id
    FROM shard_ledger
    WHERE `database` = currentDatabase() AND `table` = {table:String}
        AND shard = {shard:UInt16} AND attempt != ''
    GROUP BY attempt
)
SELECT attempt, run_id
FROM attempts
WHERE is_published
    AND started_at > (SELECT min(started_at) FROM attempts WHERE attempt = {attempt:String})
ORDER BY started_at DESC
LIMIT 1
