CREATE TABLE IF NOT EXISTS recall_history $on_cluster
(
    `database` LowCardinality(String) DEFAULT currentDatabase(),
    `table` LowCardinality(String) COMMENT 'the base table',
    build_id String,
    `column` LowCardinality(String) COMMENT 'the vector column searched',
    kind LowCardinality(String) COMMENT 'cross, near, words: which standing queries',
    queries UInt32,
    `rows` UInt64 COMMENT 'rows of the search table',
    recall_sample Float32 COMMENT 'share of these rows that was searched',
    profile String COMMENT 'JSON: how thoroughly was searched, by the kind of search table',
    own_profile String COMMENT 'JSON: the cheapest by which this kind of query alone reaches the target',
    ef UInt32 COMMENT 'hnsw_candidate_list_size_for_search',
    multiplier UInt32 COMMENT 'candidates rescored per result; 0: none',
    recall_at_10 Float32,
    recall_at_10_low Float32 COMMENT 'its lower 95 % bound',
    read_bytes UInt64 COMMENT 'of a search, on average',
    recall_at_100 Float32,
    target Float32 COMMENT 'of recall_at_10',
    is_accepted Bool,
    ann_p50_ms Float32,
    ann_p95_ms Float32,
    ann_p99_ms Float32,
    exact_p50_ms Float32,
    exact_p95_ms Float32,
    exact_p99_ms Float32,
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY (`database`, `table`, at)
COMMENT 'What searches of each build found, measured before it was put in place.'
