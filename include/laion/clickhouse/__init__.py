"""Everything that speaks SQL: tables, loading, ledger, search table."""
