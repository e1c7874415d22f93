-- What the query log says of a query, its end before its start. Where a server names queries itself,
-- as the embedded one does, the name that was asked for is the comment.
SELECT
    type, toUnixTimestamp64Milli(event_time_microseconds) AS at_ms, query_duration_ms AS duration_ms, read_rows,
    read_bytes, written_rows, written_bytes, memory_usage AS memory, user, exception, query
FROM system.query_log
WHERE event_date >= today() - {days:UInt16} AND (query_id = {id:String} OR log_comment = {id:String})
ORDER BY event_time_microseconds DESC, type DESC
LIMIT 10
