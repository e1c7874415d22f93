-- The base table's columns, and none of the indexes, projections and constraints that its owner may have
-- added.
CREATE TABLE IF NOT EXISTS $shadow $on_cluster
(
    $columns
)
ENGINE = $engine
PARTITION BY intDiv(shard, $shards_per_bucket)
ORDER BY id
SETTINGS
    -- Rescoring reads whole granules, so small ones make it cheap.
    index_granularity = 128,
    -- The index is built once per bucket, after its parts are merged.
    materialize_skip_indexes_on_merge = 0
    $placement
COMMENT $comment
