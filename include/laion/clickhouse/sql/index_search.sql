-- The same question put so that the vector index answers it.
SELECT id, url, caption, cosineDistance(image_embedding, {target:Array(Float32)}) AS distance
FROM $table
WHERE NOT similarity < 0.2
ORDER BY distance
LIMIT {limit:UInt32}
