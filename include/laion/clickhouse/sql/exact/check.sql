-- Another run may have published more meanwhile.
SELECT
    (SELECT count() FROM $table) >= $rows AS has_all_rows,
    (SELECT count() FROM system.tables WHERE `database` = currentDatabase() AND name = $view) = 1 AS has_view
