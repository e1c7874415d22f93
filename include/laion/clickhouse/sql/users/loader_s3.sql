-- ClickHouse reads staged Parquet files by its table function `s3`: docs/s3.md.
GRANT S3 ON *.* TO laion_loader;
