ALTER TABLE $table $on_cluster MODIFY COMMENT $comment
