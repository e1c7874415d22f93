-- Run by an Airflow operator, which fills in the names. One row; the task fails when any of its
-- columns is false.
{%- set search = (params.table or params.dataset) ~ "_search" %}
SELECT
    (SELECT count() FROM {{ search }})
        = {{ ti.xcom_pull(task_ids="publish_index") | int }} AS has_all_rows,
    count() > 0 AS has_parts,
    count() = uniqExact(`partition`) AS every_bucket_is_one_part,
    min(secondary_indices_uncompressed_bytes) > 0 AS every_part_is_indexed
FROM system.parts
WHERE active AND `database` = currentDatabase() AND `table` = '{{ search }}'
