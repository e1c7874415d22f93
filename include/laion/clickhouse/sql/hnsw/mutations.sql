SELECT mutation_id, latest_fail_reason AS failure
FROM system.mutations
WHERE `database` = currentDatabase() AND `table` = {table:String} AND NOT is_done
    AND match(command, 'PARTITION ' || toString({bucket:UInt32}) || '\\b')
