-- The shards whose rows are farther from their lists than those of any publication that lists were trained on.
WITH
    of_shards AS
    (
        SELECT shard, any(far) AS far, has({known:Array(String)}, concat(toString(shard), ' ', any(attempt))) AS is_known
        FROM $assigned
        GROUP BY shard
    ),
    -- The rows of a shard may all be the same.
    (SELECT greatest(maxOrNull(far), 0.001) FROM of_shards WHERE is_known) AS farthest
SELECT shard, far / farthest AS times
FROM of_shards
WHERE NOT is_known AND far > {farther:Float64} * farthest
ORDER BY times
