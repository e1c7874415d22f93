SELECT
    count() AS rows,
    uniqExact(id) AS distinct_ids,
    min(id) AS first_id,
    max(id) AS last_id,
    countIf(length(image_embedding) != {dimension:UInt32}) AS odd_images,
    countIf(length(text_embedding) != {dimension:UInt32}) AS odd_texts,
    -- A sum wraps and does not depend on the order of rows.
    sum(cityHash64(
        id, url, caption, NSFW, similarity, image_embedding, text_embedding, shard, LICENSE,
        width, height, original_width, original_height, key
    )) AS hash
FROM $table
WHERE shard = {shard:UInt16}
