-- What another replica has written is here after this.
SYSTEM SYNC REPLICA $table
