SELECT argMax(state, at) AS last_state
FROM search_builds
WHERE `database` = currentDatabase() AND `table` = {table:String}
    AND build_id = {build_id:String} AND state NOT IN ('alive', 'claimed')
HAVING count() > 0
