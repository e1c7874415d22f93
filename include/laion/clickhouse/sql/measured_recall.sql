-- What the chosen settings of a build found, by column and kind of query.
SELECT `column`, kind, argMax(
        (recall_at_10, recall_at_100, ef, multiplier, ann_p50_ms, exact_p50_ms, target), at
    ) AS measured
FROM recall_history
WHERE `database` = currentDatabase() AND `table` = {table:String} AND build_id = {build_id:String}
GROUP BY `column`, kind
ORDER BY `column`, kind
