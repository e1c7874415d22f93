INSERT INTO $lists (list, rows, near)
SELECT
    list,
    held AS rows,
    -- Rows are of length 1, and so is this.
    arrayConcat(mean, [sqrt(greatest(0, mean_square - arraySum(x -> x * x, mean)))], $zeros)::Array(Float32)::Array(BFloat16)
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
