EXCHANGE TABLES $shadow AND $table $on_cluster
