SELECT
    $has_all_rows AS has_all_rows,
    count() > 0 AS has_parts,
    count() = uniqExact(`table`, `partition`) AS every_bucket_is_one_part
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` IN ($names)
