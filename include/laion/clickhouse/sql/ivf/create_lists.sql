-- By what a search chooses lists: the mean of a list's rows, not of length 1, and how far they are from it.
CREATE TABLE IF NOT EXISTS $name $on_cluster
(
    list UInt32,
    `rows` UInt64,
    mean Array(BFloat16),
    spread Float32 COMMENT 'The root of the mean squared distance of rows from their mean.'
)
ENGINE = $engine
ORDER BY list
SETTINGS index_granularity = 8192 $placement
COMMENT $comment
