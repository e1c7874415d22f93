arraySlice(laion_lists.1, 1, laion_wanted) AS laion_first,
    (
        SELECT count()
        FROM $narrow
        WHERE list IN (SELECT arrayJoin(laion_first)) $and
    ) AS laion_passing,
    arraySum(arraySlice(laion_lists.2, 1, laion_wanted)) / greatest(laion_passing, 1) AS laion_share,
    toUInt64(if(laion_passing < $candidates, 1e9, least(1e9, ceil(laion_wanted * laion_share)))) AS laion_needed,
    (
        SELECT groupArray(list)
        FROM
        (
            SELECT list
            FROM $lists
            ORDER BY cosineDistance(near, laion_ranked_by)
            LIMIT if(laion_needed > laion_wanted, laion_needed, 0)
        )
        SETTINGS vector_search_use_quantized_codes = 0
    ) AS laion_more,
    if(laion_needed > laion_wanted, laion_more, laion_first)
