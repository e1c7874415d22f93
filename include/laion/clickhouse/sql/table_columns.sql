SELECT name, type, default_kind AS kind, default_expression AS expression, compression_codec AS codec
FROM system.columns
WHERE `database` = currentDatabase() AND `table` = {table:String}
ORDER BY position
