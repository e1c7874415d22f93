-- The lists as they were trained: by these, rows are put into lists, until lists are trained again.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    list UInt32,
    `group` UInt32 COMMENT 'A row is compared with the lists of a few groups.',
    lists UInt32 COMMENT 'How many there are in all.',
    centroid Array(Float32)
)
ENGINE = $engine
ORDER BY list
SETTINGS index_granularity = 8192 $placement
COMMENT $comment
