-- What a search by one vector reads, in the order of inverted lists: the rows of a list lie together.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    list UInt32,
    id Int64,
    shard UInt16,
    $filters,
    $vector Array(BFloat16) CODEC(Quantized($method, $dimension))
)
ENGINE = $engine
PARTITION BY intDiv(shard, $shards_per_bucket)
ORDER BY (list, id)
SETTINGS
    -- Lists are read by whole granules, and a shortlist's vectors by whole blocks.
    index_granularity = 16,
    index_granularity_bytes = 0,
    min_compress_block_size = 16384,
    max_compress_block_size = 16384,
    -- Codes are a stream of their own in wide parts only.
    min_bytes_for_wide_part = 0
    $placement
COMMENT $comment
