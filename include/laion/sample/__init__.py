"""A small dataset in LAION's own layout, made on this machine, and a server for its files."""
