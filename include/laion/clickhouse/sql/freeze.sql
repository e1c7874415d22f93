-- A merge drops the graphs of its parts. Each partition is one part already, and no automatic merge is to
-- follow when somebody writes into the table.
ALTER TABLE $table $on_cluster
    MODIFY SETTING
        max_bytes_to_merge_at_min_space_in_pool = 1,
        max_bytes_to_merge_at_max_space_in_pool = 1
