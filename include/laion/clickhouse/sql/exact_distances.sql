SELECT id, $metric($column::Array(Float64), {target:Array(Float64)}) AS distance
FROM $table
WHERE id IN {ids:Array(Int64)}
