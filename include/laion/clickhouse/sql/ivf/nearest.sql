-- The lists whose rows may be nearest are read: more of them where few rows pass the filters, and all of them where
-- those have too few. Of the rows that pass the codes are compared, and of as many as LIMIT asks for, times a factor,
-- the vectors.
WITH
    $target AS laion_target,
    (
        SELECT groupArray(list)
        FROM
        (
            SELECT list
            FROM $lists
            -- A list may be near by its mean, or because its rows lie far apart.
            ORDER BY dotProduct(mean, L2Normalize(laion_target)::Array(BFloat16)) + $spread_weight * spread DESC
        )
    ) AS laion_lists,
    arraySlice(laion_lists, 1, toUInt32(least(toFloat64(length(laion_lists)), ceil($wanted / $passing)))) AS laion_near,
    (
        SELECT count()
        FROM
        (
            SELECT 1
            FROM $narrow
            WHERE list IN (SELECT arrayJoin(laion_near)) $and
            LIMIT $candidates
        )
    ) AS laion_enough
SELECT $columns, cosineDistance($vector, laion_target) AS distance
FROM $narrow
WHERE list IN (SELECT arrayJoin(if(laion_enough < $candidates, laion_lists, laion_near))) $and
ORDER BY distance
LIMIT $limit
