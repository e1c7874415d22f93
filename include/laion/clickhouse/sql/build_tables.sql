-- The tables that builds of a table's search table have made, under names of their own.
SELECT name
FROM system.tables
WHERE `database` = currentDatabase() AND startsWith(name, concat({search:String}, '_'))
    AND match(substring(name, length({search:String}) + 10), '^(_\\w+)?$$')
    AND substring(name, length({search:String}) + 2, 8) IN
    (
        SELECT build_id
        FROM search_builds
        WHERE `database` = currentDatabase() AND `table` = {table:String}
    )
ORDER BY name
