-- The lists that have far more of the rows than they had of the shards that they were trained on, the largest first.
WITH (SELECT (count(), countIf(shard IN {known:Array(UInt16)}), uniqExact(list)) FROM $assigned) AS of_all
SELECT list, count() AS held, held * of_all.3 / of_all.1 AS times
FROM $assigned
GROUP BY list
HAVING held / of_all.1
    > {growth:Float64} * greatest(countIf(shard IN {known:Array(UInt16)}) / of_all.2, 1 / of_all.3)
ORDER BY held DESC
