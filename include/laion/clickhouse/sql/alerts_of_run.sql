SELECT count() AS alerts
FROM alert_events
WHERE `database` = currentDatabase() AND dag_id = {dag_id:String} AND run_id = {run_id:String}
    AND state = 'failed'
