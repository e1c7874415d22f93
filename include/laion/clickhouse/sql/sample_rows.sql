-- The same rows each time, from anywhere in the table.
SELECT id, $columns
FROM $shadow
WHERE id IN (SELECT id FROM $shadow ORDER BY cityHash64(id, {seed:String}) LIMIT {count:UInt32})
ORDER BY cityHash64(id, {seed:String})
