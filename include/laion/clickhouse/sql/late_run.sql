-- Who was the first to find that a run is late.
SELECT event_id
FROM alert_events
WHERE `database` = currentDatabase() AND dag_id = {dag_id:String} AND run_id = {run_id:String}
    AND state = 'late'
ORDER BY at, event_id
LIMIT 1
