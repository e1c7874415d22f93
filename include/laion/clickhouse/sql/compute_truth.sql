-- All queries of a column in one scan of a bucket.
INSERT INTO recall_truth (`table`, root, `column`, bucket, made_by, number, ids, distances)
WITH
    (
        SELECT groupArray(vector)
        FROM
        (
            SELECT vector
            FROM recall_queries
            WHERE `database` = currentDatabase() AND `table` = {table:String}
                AND root = {root:String} AND `column` = {column:String}
            ORDER BY number
        )
    ) AS queries
SELECT
    {table:String},
    {root:String},
    {column:String},
    {bucket:UInt32},
    {made_by:String},
    number,
    arrayMap(hit -> hit.2, hits),
    arrayMap(hit -> hit.1, hits)
FROM
(
    SELECT [$nearest] AS by_query
    FROM $shadow
    WHERE $in_bucket
)
ARRAY JOIN by_query AS hits, arrayEnumerate(by_query) AS number
