SELECT sorting_key, primary_key, extract(engine_full, ' SETTINGS (.*)$$')
FROM system.tables
WHERE `database` = currentDatabase() AND name = {table:String}
