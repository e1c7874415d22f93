-- What the chosen settings of a build found, by column and kind of query.
SELECT `column`, kind, recall_at_10, recall_at_100, profile, ef, multiplier, ann_p50_ms, exact_p50_ms, target
FROM recall_history
WHERE `database` = currentDatabase() AND `table` = {table:String} AND build_id = {build_id:String}
ORDER BY `column`, kind, at DESC
LIMIT 1 BY `column`, kind
