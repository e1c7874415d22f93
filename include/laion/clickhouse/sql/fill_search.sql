-- Rows whose vectors an index cannot hold (zero or not finite) are left out.
INSERT INTO $shadow
SELECT *
FROM $table
WHERE isFinite(L2Norm(image_embedding)) AND L2Norm(image_embedding) > 0
    AND isFinite(L2Norm(text_embedding)) AND L2Norm(text_embedding) > 0
SETTINGS
    materialize_skip_indexes_on_insert = 0,
    max_partitions_per_insert_block = 0,
    async_insert = 0
