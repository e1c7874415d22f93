-- A policy is set when the table says so itself; without one, the server's own is in use.
SELECT
    sorting_key,
    primary_key,
    if(match(engine_full, 'SETTINGS.*\\bstorage_policy = '), storage_policy, '') AS own_storage_policy
FROM system.tables
WHERE `database` = currentDatabase() AND name = {table:String}
