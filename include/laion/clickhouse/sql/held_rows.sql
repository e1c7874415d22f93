-- The rows of a base table that a reader gets, by shard. The server counts them from its metadata as
-- long as none was deleted; the counts in system.parts know nothing of a lightweight DELETE.
SELECT shard, count() AS held_rows
FROM $table $which
GROUP BY shard
