-- The base table's columns, and what two tables must share to exchange partitions; none of the indexes,
-- projections and constraints that its owner may have added.
CREATE TABLE $staging $on_cluster
(
    $columns
)
ENGINE = $engine
PARTITION BY shard
PRIMARY KEY ($primary_key)
ORDER BY ($sorting_key)
SETTINGS $settings
COMMENT 'Rows of one shard on their way into the base table; dropped when published.'
