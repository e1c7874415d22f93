SELECT id, $metric($column, {target:Array(Float32)}) AS distance
FROM $shadow
WHERE _partition_id IN {partitions:Array(String)}
ORDER BY distance
LIMIT {limit:UInt32}
