(
    SELECT (countIf($conditions) + 0.5) / (count() + 0.5)
    FROM $sample
)
