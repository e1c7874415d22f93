-- Merging rows that move on in a moment would be work for nothing.
ALTER TABLE $staging $on_cluster MODIFY SETTING max_bytes_to_merge_at_max_space_in_pool = 1
