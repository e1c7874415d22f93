-- Tables on every server of a cluster (LAION_CLICKHOUSE_CLUSTER): docs/scaling.md.
GRANT CLUSTER ON *.* TO laion_loader;
GRANT REMOTE ON *.* TO laion_loader;
GRANT SYSTEM SYNC REPLICA ON $database.* TO laion_loader;
GRANT SELECT ON system.clusters TO laion_loader;
