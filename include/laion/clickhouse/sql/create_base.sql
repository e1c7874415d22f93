CREATE TABLE IF NOT EXISTS $table $on_cluster
(
    $columns
)
ENGINE = $engine
PARTITION BY shard
ORDER BY id
COMMENT $comment
