CREATE TABLE IF NOT EXISTS recall_truth $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    root String,
    `column` LowCardinality(String),
    bucket UInt32,
    made_by String COMMENT 'the build that built the bucket',
    number UInt32,
    ids Array(Int64) COMMENT 'nearest first',
    distances Array(Float32),
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, root, `column`, bucket, made_by, number)
COMMENT 'The exact nearest rows of each standing query in each bucket.'
