-- Tables that builds of this search table have left, but for the one that builds now.
SELECT t.name
FROM system.tables AS t
INNER JOIN
(
    SELECT DISTINCT concat({search:String}, '_', build_id) AS name
    FROM search_builds
    WHERE `database` = currentDatabase() AND `table` = {table:String}
        AND build_id != {build_id:String}
) AS b ON t.name = b.name
WHERE t.`database` = currentDatabase()
