SELECT sorting_key, primary_key, extract(engine_full, ' SETTINGS (.*)$$') AS settings
FROM system.tables
WHERE `database` = currentDatabase() AND name = {table:String}
