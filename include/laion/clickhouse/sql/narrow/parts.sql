-- What one partition of a narrow table consists of; `rows` are those that a reader gets.
SELECT
    count() AS parts,
    (SELECT count() FROM $narrow WHERE _partition_id = toString({bucket:UInt32})) AS rows,
    sum(bytes_on_disk) AS bytes
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = {table:String}
    AND partition = toString({bucket:UInt32})
