-- As in recall_history.
ALTER TABLE search_profiles $on_cluster
    ADD COLUMN IF NOT EXISTS profile String
        COMMENT 'JSON: how thoroughly is searched, by the kind of search table' AFTER metric
