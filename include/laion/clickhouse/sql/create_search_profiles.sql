CREATE TABLE IF NOT EXISTS search_profiles $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    build_id String,
    `column` LowCardinality(String) COMMENT 'the vector column searched',
    metric LowCardinality(String),
    profile String COMMENT 'JSON: how thoroughly is searched, by the kind of search table',
    ef UInt32 COMMENT 'hnsw_candidate_list_size_for_search',
    multiplier UInt32 COMMENT 'candidates rescored per result; 0: none',
    recall_at_10 Float32,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, build_id, `column`, at)
COMMENT 'The cheapest search settings that reached the recall target, for each build.'
