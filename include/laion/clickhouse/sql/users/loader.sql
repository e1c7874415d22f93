-- The user of the Airflow connection `clickhouse_default`: makes, fills, publishes and drops tables
-- of one database. It cannot make databases, users, functions or dictionaries, reads no file and no URL.
CREATE DATABASE IF NOT EXISTS $database;

CREATE SETTINGS PROFILE OR REPLACE laion_loader
    SETTINGS readonly = 0, max_execution_time = 0, async_insert = 0;
CREATE USER OR REPLACE laion_loader
    IDENTIFIED WITH sha256_hash BY $password_sha256
    SETTINGS PROFILE laion_loader;
-- Counts and limits nothing: a load that is cut off in the middle is begun again.
CREATE QUOTA OR REPLACE laion_loader FOR INTERVAL 1 day TRACKING ONLY TO laion_loader;

GRANT SELECT ON $database.* TO laion_loader;
GRANT INSERT ON $database.* TO laion_loader;
-- Of views as well.
GRANT CREATE TABLE ON $database.* TO laion_loader;
GRANT DROP TABLE ON $database.* TO laion_loader;
GRANT ALTER ADD COLUMN ON $database.* TO laion_loader;
GRANT ALTER SETTINGS ON $database.* TO laion_loader;
GRANT ALTER DELETE ON $database.* TO laion_loader;
GRANT ALTER ADD INDEX ON $database.* TO laion_loader;
GRANT ALTER MATERIALIZE INDEX ON $database.* TO laion_loader;
GRANT OPTIMIZE ON $database.* TO laion_loader;

-- What the server has and does; only rows about tables that the user may see.
GRANT SELECT ON system.parts TO laion_loader;
GRANT SELECT ON system.merges TO laion_loader;
GRANT SELECT ON system.mutations TO laion_loader;
GRANT SELECT ON system.disks TO laion_loader;
GRANT SELECT ON system.server_settings TO laion_loader;
GRANT SELECT ON system.asynchronous_metrics TO laion_loader;
