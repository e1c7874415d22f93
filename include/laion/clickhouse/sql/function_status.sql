SELECT name, load_status = 'Success', loading_error_message, command
FROM system.user_defined_functions
WHERE name IN {names:Array(String)}
