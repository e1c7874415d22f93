-- The newest build that a run has planned.
SELECT
    argMaxIf(plan, at, plan != '') AS newest_plan,
    argMaxIf(state, at, state NOT IN ('alive', 'claimed')) AS last_state
FROM search_builds
WHERE `database` = currentDatabase() AND `table` = {table:String}
    AND dag_id = {dag_id:String} AND run_id = {run_id:String}
GROUP BY build_id
HAVING newest_plan != ''
ORDER BY min(at) DESC
LIMIT 1
