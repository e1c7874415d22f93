-- The settings stored for the build that the search table in use is.
SELECT ef, multiplier, metric
FROM search_profiles
WHERE `database` = currentDatabase() AND `table` = {table:String} AND `column` = {column:String}
    AND build_id =
    (
        SELECT JSONExtractString(comment, 'laion', 'build', 'build_id')
        FROM system.tables
        WHERE `database` = currentDatabase() AND name = {search:String}
    )
ORDER BY at DESC
LIMIT 1
