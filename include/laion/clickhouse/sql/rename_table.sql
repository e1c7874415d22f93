RENAME TABLE $shadow TO $table $on_cluster
