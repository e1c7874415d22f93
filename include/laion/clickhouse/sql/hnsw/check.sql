SELECT
    (SELECT count() FROM $table) = $rows AS has_all_rows,
    count() > 0 AS has_parts,
    count() = uniqExact(`partition`) AS every_bucket_is_one_part,
    min(secondary_indices_uncompressed_bytes) > 0 AS every_part_is_indexed
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = $name
