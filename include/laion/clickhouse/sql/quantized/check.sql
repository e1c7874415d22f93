SELECT
    (SELECT count() FROM $narrow) = $rows AS has_all_rows,
    count() = uniqExact(`partition`) AS every_bucket_is_one_part
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = $name
