-- The newest run that was to load shards of a table, if nobody has looked at its end for long.
SELECT r.run_id AS run_id, dateDiff('hour', r.at, now64(6)) AS hours
FROM
(
    SELECT dag_id, run_id, at
    FROM ingest_runs
    WHERE `database` = currentDatabase() AND `table` = {table:String} AND shards != ''
    ORDER BY at DESC
    LIMIT 1
) AS r
LEFT JOIN
(
    SELECT dag_id, run_id, max(at) AS ended_at
    FROM run_ends
    WHERE `database` = currentDatabase()
    GROUP BY dag_id, run_id
) AS e ON r.dag_id = e.dag_id AND r.run_id = e.run_id
WHERE e.ended_at < r.at AND r.at <= now64(6) - toIntervalSecond({older_s:UInt32})
