-- Which list each row of a shard's publication is in. A shard that has not changed is not assigned again.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    shard UInt16,
    attempt LowCardinality(String),
    `rows` UInt32 COMMENT 'How many rows of the shard there are here in all.',
    held UInt32 COMMENT 'How many rows the base table had of it, those without a direction included.',
    far Float32 COMMENT 'The mean squared distance of the rows of the shard from the centroids of their lists.',
    id Int64 CODEC(Delta, LZ4),
    list UInt32
)
ENGINE = $engine
PARTITION BY shard
ORDER BY id
SETTINGS index_granularity = 8192 $placement
COMMENT $comment
