-- Which of these attempts a task is at work on, or was a moment ago.
SELECT attempt
FROM shard_ledger
WHERE `database` = currentDatabase() AND attempt IN {attempts:Array(String)}
GROUP BY attempt
HAVING argMax(state, at) = 'started' OR max(at) > now64(6) - toIntervalSecond({quiet_s:UInt32})
