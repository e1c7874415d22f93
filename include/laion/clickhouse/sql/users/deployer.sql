-- The user of `deploy_udfs` (LAION_UDF_CONN_ID): has the server read its functions again, and tries them.
CREATE DATABASE IF NOT EXISTS $database;

CREATE SETTINGS PROFILE OR REPLACE laion_deployer SETTINGS readonly = 0, max_execution_time = 300;
CREATE USER OR REPLACE laion_deployer
    IDENTIFIED WITH sha256_hash BY $password_sha256
    SETTINGS PROFILE laion_deployer;
CREATE QUOTA OR REPLACE laion_deployer FOR INTERVAL 1 hour MAX queries = 1000 TO laion_deployer;

-- Captions and their vectors, to be compared with what the functions give.
GRANT SELECT ON $database.* TO laion_deployer;
GRANT SYSTEM RELOAD FUNCTION ON *.* TO laion_deployer;
GRANT SELECT ON system.user_defined_functions TO laion_deployer;
