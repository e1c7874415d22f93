-- The same rows each time, from anywhere in the search table; what they hold, from the base table.
SELECT id, $columns
FROM $table
WHERE id IN (SELECT id FROM $searched ORDER BY cityHash64(id, {seed:String}) LIMIT {count:UInt32})
ORDER BY cityHash64(id, {seed:String})
