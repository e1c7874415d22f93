SELECT count() AS round
FROM alert_events
WHERE `database` = currentDatabase() AND dag_id = {dag_id:String} AND run_id = {run_id:String}
    AND task_id = {task_id:String} AND map_index = {map_index:Int32} AND state = 'failed'
