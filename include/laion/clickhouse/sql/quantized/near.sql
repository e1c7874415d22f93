-- A search as one statement. The settings hold where a reader may change settings; others have them in their profile.
CREATE OR REPLACE VIEW $view $on_cluster AS
WITH
    (
        SELECT (groupArray(id), groupArray(distance), groupUniqArray(shard))
        FROM
        (
            SELECT id, shard, distance
            FROM
            (
                SELECT id, shard, cosineDistance($vector, {q:Array(Float32)}) AS distance
                FROM $narrow
                WHERE $conditions
                ORDER BY distance
                LIMIT greatest(ifNull({k:Nullable(UInt32)}, 10), $shortlist)
                SETTINGS vector_search_use_quantized_codes = 1, vector_search_index_fetch_multiplier = $multiplier
            )
            ORDER BY distance, id
            LIMIT ifNull({k:Nullable(UInt32)}, 10)
        )
    ) AS found
SELECT id, found.2[indexOf(found.1, id)] AS distance, $columns
FROM $table
WHERE has(found.3, shard) AND has(found.1, id)
ORDER BY distance, id
COMMENT $comment
