-- The user of the pages (LAION_PAGES_CONN_ID), and of whoever only searches: reads one database.
CREATE DATABASE IF NOT EXISTS $database;

-- readonly = 2: settings of a query, such as how thoroughly an index is searched, may be chosen.
CREATE SETTINGS PROFILE OR REPLACE laion_searcher
    SETTINGS readonly = 2, max_execution_time = 60 MAX 300, max_memory_usage = 10000000000 MAX 10000000000;
CREATE USER OR REPLACE laion_searcher
    IDENTIFIED WITH sha256_hash BY $password_sha256
    SETTINGS PROFILE laion_searcher;
CREATE QUOTA OR REPLACE laion_searcher
    FOR INTERVAL 1 hour MAX queries = 100000, execution_time = 14400 TO laion_searcher;

GRANT SELECT ON $database.* TO laion_searcher;
GRANT SELECT ON system.parts TO laion_searcher;
GRANT SELECT ON system.user_defined_functions TO laion_searcher;
-- The text of every user's queries: without it, only the page behind the link of `load_shard` is empty.
GRANT SELECT ON system.query_log TO laion_searcher;
