-- Measurements of releases that knew one kind of search table have its two settings in columns alone.
ALTER TABLE recall_history $on_cluster
    ADD COLUMN IF NOT EXISTS profile String
        COMMENT 'JSON: how thoroughly was searched, by the kind of search table' AFTER recall_sample
