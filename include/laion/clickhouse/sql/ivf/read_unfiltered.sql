arraySlice(
        laion_lists.1,
        1,
        -- As many lists as have enough rows.
        greatest(laion_wanted, arrayCount(before -> before < $candidates, arrayCumSum(laion_lists.2)) + 1)
    )
