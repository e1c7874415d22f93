-- The lists whose rows may be nearest are read: more of them where few of their rows pass the filters, and all lists
-- where these have too few. Of the rows that pass the codes are compared, and of as many as LIMIT asks for, times a
-- factor, the vectors.
WITH
    $target AS laion_target,
    -- A list may be near by its mean, or because its rows lie far apart.
    arrayConcat(L2Normalize(laion_target), $spread_weights)::Array(Float32) AS laion_ranked_by,
    (
        SELECT (groupArray(list), groupArray(rows), 1 - min(distance))
        FROM
        (
            SELECT list, rows, cosineDistance(near, laion_ranked_by) AS distance
            FROM $lists
            ORDER BY distance
            LIMIT $most
        )
        SETTINGS vector_search_use_quantized_codes = 1, vector_search_index_fetch_multiplier = $multiplier
    ) AS laion_lists,
    $wanted AS laion_wanted,
    $read AS laion_read
SELECT $columns, cosineDistance($vector, laion_target) AS distance
FROM $narrow
WHERE list IN (SELECT arrayJoin(laion_read)) $and
ORDER BY distance
LIMIT $limit
