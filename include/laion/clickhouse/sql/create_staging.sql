CREATE TABLE $staging AS $table
COMMENT 'Rows of one shard on their way into the base table; dropped when published.'
