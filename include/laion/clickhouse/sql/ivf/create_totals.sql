-- Of every list in every bucket: its rows, the sum of their vectors, and of the squares of their lengths.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    bucket UInt32,
    list UInt32,
    `rows` UInt64,
    total Array(Float32),
    squares Float64
)
ENGINE = $engine
PARTITION BY bucket
ORDER BY list
SETTINGS index_granularity = 8192 $placement
COMMENT $comment
