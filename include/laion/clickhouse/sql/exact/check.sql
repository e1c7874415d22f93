-- The base table may have other rows by now than when its views were made.
SELECT
    (SELECT count() FROM $table) > 0 AS has_rows,
    (SELECT count() FROM system.tables WHERE `database` = currentDatabase() AND name = $view) = 1 AS has_view
