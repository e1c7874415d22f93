-- The shards whose rows are farther from their lists than those of any shard that lists were trained on.
WITH
    of_shards AS (SELECT shard, any(far) AS far FROM $assigned GROUP BY shard),
    (SELECT maxOrNull(far) FROM of_shards WHERE has({known:Array(UInt16)}, shard)) AS farthest
SELECT shard, far / farthest AS times
FROM of_shards
WHERE NOT has({known:Array(UInt16)}, shard) AND far > {farther:Float64} * farthest
ORDER BY times
