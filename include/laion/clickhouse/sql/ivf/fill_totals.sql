INSERT INTO $totals (bucket, list, rows, total, squares)
SELECT {bucket:UInt32}, list, count(), sumForEach(own), sum(dotProduct(own, own))
FROM
(
    SELECT list, $vector::Array(Float32) AS own
    FROM $narrow
    WHERE _partition_id = toString({bucket:UInt32})
)
GROUP BY list
SETTINGS async_insert = 0, optimize_aggregation_in_order = 1
