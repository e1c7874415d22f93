-- The build that was put in place last, and its plan.
SELECT build_id, maxIf(at, state = 'published') AS published_at, anyIf(plan, state = 'planned') AS plan
FROM search_builds
WHERE `database` = currentDatabase() AND `table` = {table:String}
GROUP BY build_id
HAVING countIf(state = 'published') > 0
ORDER BY published_at DESC
LIMIT 1
