-- Builds that have or want the lease; the first has it.
SELECT build_id, any(dag_id) AS dag_id, any(run_id) AS run_id
FROM search_builds
WHERE `database` = currentDatabase() AND `table` = {table:String}
GROUP BY build_id
HAVING argMax(state, at) NOT IN {over:Array(String)}
    AND max(at) > now64(6) - toIntervalSecond({lease_s:UInt32})
-- By the last claim: a build that lapsed and claims again stands behind the others.
ORDER BY maxIf(at, state = 'claimed'), build_id
