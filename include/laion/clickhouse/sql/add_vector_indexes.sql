-- The granularity is that of a whole part: one graph for each.
ALTER TABLE $shadow
    ADD INDEX image_index image_embedding
        TYPE vector_similarity('hnsw', $metric, $dimension, $quantization, $m, $ef_construction)
        GRANULARITY 100000000,
    ADD INDEX text_index text_embedding
        TYPE vector_similarity('hnsw', $metric, $dimension, $quantization, $m, $ef_construction)
        GRANULARITY 100000000
