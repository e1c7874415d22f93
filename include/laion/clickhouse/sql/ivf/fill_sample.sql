INSERT INTO $sample ($columns)
SELECT $columns
FROM $narrow
WHERE _partition_id = toString({bucket:UInt32}) AND cityHash64(id) % {every:UInt64} = 0
SETTINGS async_insert = 0
