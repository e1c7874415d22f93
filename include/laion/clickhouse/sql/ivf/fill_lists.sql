INSERT INTO $lists (list, rows, mean, spread)
SELECT
    list,
    held AS rows,
    mean::Array(Float32)::Array(BFloat16),
    sqrt(greatest(0, mean_square - arraySum(x -> x * x, mean)))
FROM
(
    SELECT
        list,
        sum(rows) AS held,
        arrayMap(x -> x / held, sumForEach(total)) AS mean,
        sum(squares) / held AS mean_square
    FROM $totals
    GROUP BY list
)
SETTINGS async_insert = 0
