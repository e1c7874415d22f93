"""A shard's way into the base table: into a staging table, verified, published in one step."""
