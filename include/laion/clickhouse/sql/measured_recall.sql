-- What the chosen settings of a build found, by column and kind of query.
-- All columns: tables of an earlier release have no `profile` until a task has run.
SELECT *
FROM recall_history
WHERE `database` = currentDatabase() AND `table` = {table:String} AND build_id = {build_id:String}
ORDER BY `column`, kind, at DESC
LIMIT 1 BY `column`, kind
