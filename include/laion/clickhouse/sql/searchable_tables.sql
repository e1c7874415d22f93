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
    SELECT name, comment, replaceRegexpOne(name, '_(search|near)$$', '') AS `table`
    FROM system.tables
    WHERE `database` = currentDatabase() AND match(name, '_(search|near)$$')
        -- Somebody else's may have such a name.
        AND position(comment, '"search_of"') > 0
) AS t ON t.`table` = r.`table`
ORDER BY r.last_at DESC, t.name LIKE '%\_near' DESC
LIMIT 1 BY r.`table`
