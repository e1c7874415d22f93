-- The tables that have a search table, the one loaded last first, and its comment.
SELECT r.`table` AS `table`, r.dataset AS dataset, t.name AS name, t.comment AS comment
FROM
(
    SELECT `table`, argMax(dataset, at) AS dataset, max(at) AS last_at
    FROM ingest_runs
    WHERE `database` = currentDatabase()
    GROUP BY `table`
) AS r
INNER JOIN
(
    SELECT name, comment
    FROM system.tables
    WHERE `database` = currentDatabase()
) AS t ON t.name = concat(r.`table`, '_search')
ORDER BY r.last_at DESC
