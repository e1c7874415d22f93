-- What held_rows finds where there is no table.
SELECT toUInt16(0) AS shard, toUInt64(0) AS held_rows
WHERE 0
