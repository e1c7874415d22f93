-- All failures of one cause; the first of them sends the alert.
WITH counts AS
(
    SELECT
        shard,
        max(rows_expected) AS expected,
        maxIf(rows_loaded, stage = 'load') AS loaded
    FROM shard_ledger
    WHERE `database` = currentDatabase() AND dag_id = {dag_id:String} AND run_id = {run_id:String}
    GROUP BY shard
)
SELECT
    a.event_id AS event_id,
    a.shard AS shard,
    if(a.shard < 0, 0, c.expected) AS rows_expected,
    if(a.shard < 0, 0, c.loaded) AS rows_loaded
FROM alert_events AS a
LEFT JOIN counts AS c ON a.shard = c.shard
WHERE a.`database` = currentDatabase() AND a.dag_id = {dag_id:String}
    AND a.run_id = {run_id:String} AND a.cause = {cause:String} AND a.round = {round:UInt16}
    AND a.state = 'failed'
ORDER BY a.at, a.event_id
