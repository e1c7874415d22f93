-- Some of the rows, with what searches filter by: how many of them pass says how many lists to read.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    id Int64,
    shard UInt16,
    $filters
)
ENGINE = $engine
PARTITION BY intDiv(shard, $shards_per_bucket)
ORDER BY id
SETTINGS index_granularity = 8192 $placement
COMMENT $comment
