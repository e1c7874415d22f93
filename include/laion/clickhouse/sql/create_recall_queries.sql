CREATE TABLE IF NOT EXISTS recall_queries $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    root String COMMENT 'the full build they were sampled for',
    `column` LowCardinality(String) COMMENT 'the vector column they search',
    number UInt32 COMMENT 'from 1, in each column',
    kind LowCardinality(String) COMMENT 'cross: a vector of the other column; near: between two rows; words: a phrase encoded',
    vector Array(Float32),
    excluded Array(Int64) COMMENT 'rows that the query was made from',
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, root, `column`, number)
COMMENT 'Standing queries by which the recall of search tables is measured.'
