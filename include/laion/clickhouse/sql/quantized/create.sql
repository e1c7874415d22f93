-- What a search by one vector reads: the codes of every row, the vectors of a shortlist, and what is filtered by.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    id Int64,
    shard UInt16,
    $filters,
    $vector Array(BFloat16) CODEC(Quantized($method, $dimension))
)
ENGINE = $engine
PARTITION BY intDiv(shard, $shards_per_bucket)
ORDER BY id
SETTINGS
    -- The shortlist's vectors are read by whole granules: with 128 rows in each, a fifth more bytes are read.
    index_granularity = 32,
    -- Codes are a stream of their own in wide parts only.
    min_bytes_for_wide_part = 0
    $placement
COMMENT $comment
