-- The base table's columns, and what two tables must share to exchange partitions; none of the indexes,
-- projections and constraints that its owner may have added. Merging rows that move on in a moment would
-- be work for nothing.
CREATE TABLE $staging $on_cluster
(
    $columns
)
ENGINE = $engine
PARTITION BY shard
PRIMARY KEY ($primary_key)
ORDER BY ($sorting_key)
SETTINGS
    max_bytes_to_merge_at_min_space_in_pool = 1,
    max_bytes_to_merge_at_max_space_in_pool = 1
    $storage_policy
COMMENT 'Rows of one shard on their way into the base table; dropped when published.'
