-- How the gate of a build found that a vector is to be searched.
SELECT *
FROM search_profiles
WHERE `database` = currentDatabase() AND `table` = {table:String} AND build_id = {build_id:String}
    AND `column` = {column:String}
ORDER BY at DESC
LIMIT 1
