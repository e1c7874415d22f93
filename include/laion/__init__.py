"""Get an embedding dataset into ClickHouse, shard by shard, on Apache Airflow."""

__version__ = "0.1.0"
