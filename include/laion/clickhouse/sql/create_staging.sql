CREATE TABLE $staging $on_cluster AS $table
ENGINE = $engine
PARTITION BY shard
ORDER BY id
COMMENT 'Rows of one shard on their way into the base table; dropped when published.'
