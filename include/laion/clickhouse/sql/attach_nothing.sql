-- The staging table is empty: nothing moves, but the server checks that partitions could.
ALTER TABLE $table ATTACH PARTITION $shard FROM $staging
