"""The database: connection, schema, clock, identifiers and paging."""
