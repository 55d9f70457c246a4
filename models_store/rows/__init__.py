"""SQL statements inside a transaction that another module began."""
