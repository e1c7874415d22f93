SELECT id, $metric($column, {target:Array(Float32)}) AS distance
FROM $shadow
$where
ORDER BY distance
LIMIT {limit:UInt32}
