SELECT name, toBool(load_status = 'Success') AS works, loading_error_message AS error, command
FROM system.user_defined_functions
WHERE name IN {names:Array(String)}
