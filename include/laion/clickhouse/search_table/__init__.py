"""The search table: planned, built in parts beside the one in use, measured, put in place."""
