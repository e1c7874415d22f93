-- All ClickHouse shards as one table, for reading.
CREATE TABLE IF NOT EXISTS $distributed $on_cluster AS $table
ENGINE = Distributed($shards_cluster, currentDatabase(), $table, shard)
