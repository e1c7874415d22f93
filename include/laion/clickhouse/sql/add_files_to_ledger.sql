-- Ledgers made before downloads told what they fetched lack the column.
ALTER TABLE shard_ledger $on_cluster
    ADD COLUMN IF NOT EXISTS files String
        COMMENT 'JSON by role, at the end of a download: url, size, etag, sha256' AFTER error
