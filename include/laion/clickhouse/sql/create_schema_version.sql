CREATE TABLE IF NOT EXISTS schema_version $on_cluster
(
    version UInt32,
    made_by String COMMENT 'version of the package',
    at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $engine
ORDER BY at
COMMENT 'Versions that the structure of these tables has had; the largest is the present one.'
