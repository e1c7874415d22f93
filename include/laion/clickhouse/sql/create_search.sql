CREATE TABLE $shadow
(
    id Int64,
    url String,
    caption String,
    NSFW String,
    similarity Float32,
    -- Uncompressed: LZ4 would save 5 % of the disk and cost a scan a third more CPU.
    image_embedding Array(Float32) CODEC(NONE),
    text_embedding Array(Float32) CODEC(NONE),
    shard UInt16,
    LICENSE String,
    width UInt32,
    height UInt32,
    original_width UInt32,
    original_height UInt32,
    key String,
    INDEX image_index image_embedding
        TYPE vector_similarity('hnsw', $metric, $dimension, $quantization, $m, $ef_construction)
        GRANULARITY 100000000,
    INDEX text_index text_embedding
        TYPE vector_similarity('hnsw', $metric, $dimension, $quantization, $m, $ef_construction)
        GRANULARITY 100000000
)
ENGINE = MergeTree
PARTITION BY intDiv(shard, $shards_per_bucket)
ORDER BY id
SETTINGS
    -- Rescoring reads whole granules, so small ones make it cheap.
    index_granularity = 128,
    -- The index is built once per bucket, after its parts are merged.
    materialize_skip_indexes_on_merge = 0
COMMENT $comment
