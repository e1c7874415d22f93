SELECT count() > 0 FROM system.tables WHERE `database` = 'system' AND name = 'user_defined_functions'
