SELECT id, url, caption, similarity, NSFW, LICENSE, width, height, $metric($column, $target) AS distance
FROM $table
$where
ORDER BY distance
LIMIT {limit:UInt32}
