-- The lists whose rows may be nearest are read: more of them where few of their rows pass the filters, and all lists
-- where these have too few. Of the rows that pass the codes are compared, and of as many as LIMIT asks for, times a
-- factor, the vectors.
WITH
    $target AS laion_target,
    (
        SELECT (groupArray(list), groupArray(rows), max(score))
        FROM
        (
            -- A list may be near by its mean, or because its rows lie far apart.
            SELECT
                list,
                rows,
                dotProduct(mean, L2Normalize(laion_target)::Array(BFloat16)) + $spread_weight * spread AS score
            FROM $lists
            ORDER BY score DESC
        )
    ) AS laion_lists,
    $wanted AS laion_wanted,
    arraySlice(laion_lists.1, 1, laion_wanted) AS laion_first,
    arraySum(arraySlice(laion_lists.2, 1, laion_wanted)) AS laion_first_rows,
    $passing AS laion_passing,
    if(
        laion_passing < $candidates,
        laion_lists.1,
        arraySlice(laion_lists.1, 1, toUInt32(least(1e9, ceil(laion_wanted * laion_first_rows / greatest(laion_passing, 1)))))
    ) AS laion_read
SELECT $columns, cosineDistance($vector, laion_target) AS distance
FROM $narrow
WHERE list IN (SELECT arrayJoin(laion_read)) $and
ORDER BY distance
LIMIT $limit
