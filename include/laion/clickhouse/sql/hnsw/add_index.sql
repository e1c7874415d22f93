-- The granularity is that of a whole part: one graph for each.
ALTER TABLE $shadow
    ADD INDEX IF NOT EXISTS $index $column
        TYPE vector_similarity('hnsw', $metric, $dimension, $quantization, $m, $ef_construction)
        GRANULARITY 100000000
