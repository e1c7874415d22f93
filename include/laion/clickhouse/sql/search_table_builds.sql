-- The newest builds of a table's search table, and how each ended.
SELECT
    build_id,
    argMax(state, at) AS last_state,
    argMaxIf(plan, at, plan != '') AS newest_plan,
    toUnixTimestamp64Milli(max(at)) AS at_ms
FROM search_builds
WHERE `database` = currentDatabase() AND `table` = {table:String} AND state NOT IN ('alive', 'claimed')
GROUP BY build_id
HAVING last_state != 'withdrawn' AND newest_plan != ''
ORDER BY max(at) DESC
LIMIT 20
