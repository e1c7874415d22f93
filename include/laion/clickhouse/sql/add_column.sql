-- The rows that are there already have no value in it.
ALTER TABLE $table $on_cluster ADD COLUMN IF NOT EXISTS $column $type DEFAULT $missing
