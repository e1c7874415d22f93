CREATE TABLE IF NOT EXISTS $table $on_cluster
(
    id Int64,
    url String,
    caption String,
    NSFW String,
    similarity Float32,
    -- Uncompressed: LZ4 would save 5 % of the disk and cost a scan a third more CPU.
    $vectors,
    shard UInt16,
    LICENSE String,
    width UInt32,
    height UInt32,
    original_width UInt32,
    original_height UInt32,
    key String
)
ENGINE = $engine
PARTITION BY shard
ORDER BY id
COMMENT $comment
