SELECT mutation_id, parts_to_do, latest_fail_reason
FROM system.mutations
WHERE `database` = currentDatabase() AND `table` = {table:String} AND NOT is_done
    AND match(command, 'PARTITION ' || toString({bucket:UInt32}) || '\\b')
