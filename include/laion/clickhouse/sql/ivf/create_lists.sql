-- By what a search ranks lists, and how many rows each has.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    list UInt32,
    `rows` UInt64,
    near Array(BFloat16) CODEC(Quantized('turboquant', $dimension))
        COMMENT 'The mean of the rows, not of length 1; how far they are from it, as the root of the mean square; zeros.'
)
ENGINE = $engine
ORDER BY list
SETTINGS
    -- The best by their codes are compared by their vectors: few others should be read with them. With 1, codes take
    -- longer.
    index_granularity = 4,
    -- Codes are a stream of their own in wide parts only.
    min_bytes_for_wide_part = 0
    $placement
COMMENT $comment
