(
    SELECT count()
    FROM $narrow
    WHERE list IN (SELECT arrayJoin(laion_first)) $and
)
